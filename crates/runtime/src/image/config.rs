//! The image configuration: platform, diff ids, and what it says about running the image.

use std::collections::BTreeMap;

use portlayer::task::ImageDefaults;
use serde::Deserialize;

use super::fault::{ImageRule, refuse};
use portlayer::store::StoreError;

/// The machine's architecture in OCI (Go) words.
pub fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default)]
    config: Option<RunConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    pub(super) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

impl ImageConfig {
    /// Parses and checks the configuration of an image.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<ImageConfig, StoreError> {
        let config: ImageConfig = serde_json::from_slice(bytes)
            .map_err(|e| refuse(name, ImageRule::Json(e.to_string())))?;
        if config.os != "linux" || config.architecture != native_architecture() {
            let platform = format!("{}/{}", config.os, config.architecture);
            return Err(refuse(name, ImageRule::Platform(platform)));
        }
        for diff_id in &config.rootfs.diff_ids {
            super::digest::check(name, diff_id)?;
        }
        Ok(config)
    }

    /// What it says about running the image.
    pub(super) fn defaults(self, name: &str) -> Result<ImageDefaults, StoreError> {
        let run = self.config.unwrap_or_default();
        let mut env = Vec::new();
        for entry in run.env.unwrap_or_default() {
            let (key, value) = entry.split_once('=').unwrap_or((&entry, ""));
            if key.is_empty() || entry.contains('\0') {
                return Err(refuse(name, ImageRule::Environment));
            }
            env.push((key.to_owned(), value.to_owned()));
        }
        let text = |value: Option<String>| value.filter(|v| !v.is_empty());
        let stop_signal = match text(run.stop_signal) {
            None => None,
            Some(signal) => Some(
                signal_number(&signal)
                    .ok_or_else(|| refuse(name, ImageRule::StopSignal(signal)))?,
            ),
        };
        Ok(ImageDefaults {
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env,
            user: text(run.user),
            cwd: text(run.working_dir),
            stop_signal,
            labels: run.labels.unwrap_or_default(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
        })
    }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = |base: i32, offset: &str| match offset {
        "" => Some(base),
        offset => offset.parse::<i32>().ok().map(|o| base + o),
    };
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        real_time(34, offset)?
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        real_time(64, offset)?
    } else {
        format!("SIG{name}")
            .parse::<nix::sys::signal::Signal>()
            .ok()? as i32
    };
    (1..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_by_name_and_number() {
        assert_eq!(signal_number("SIGTERM"), Some(15));
        assert_eq!(signal_number("QUIT"), Some(3));
        assert_eq!(signal_number("9"), Some(9));
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("SIGRTMAX-1"), Some(63));
        assert_eq!(signal_number("SIGNOTHING"), None);
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_number("SIGRTMIN+99"), None);
    }

    #[test]
    fn defaults_are_read() {
        let json = serde_json::json!({
            "os": "linux", "architecture": native_architecture(), "rootfs": { "type": "layers", "diff_ids": [] },
            "config": { "Env": ["A=b=c", "EMPTY"], "Cmd": null, "Entrypoint": ["/init"], "User": "", "WorkingDir": "/w",
                        "StopSignal": "SIGINT", "Labels": { "k": "v" }, "Volumes": { "/data": {} } },
        });
        let config = ImageConfig::parse("c", json.to_string().as_bytes()).unwrap();
        let defaults = config.defaults("c").unwrap();
        assert_eq!(
            defaults.env,
            [("A".into(), "b=c".into()), ("EMPTY".into(), String::new())]
        );
        assert_eq!(defaults.entrypoint, ["/init"]);
        assert_eq!(defaults.user, None);
        assert_eq!(defaults.cwd.as_deref(), Some("/w"));
        assert_eq!(defaults.stop_signal, Some(2));
        assert_eq!(defaults.volumes, ["/data"]);
    }
}
