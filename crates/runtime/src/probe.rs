//! What this node can do, found at start and said in plain words.

use std::{collections::BTreeSet, time::Duration};

use containerd_client::services::v1::PluginsRequest;
use portlayer::runtime::{DiskBound, HostIsolation, RuntimeError, RuntimeErrorKind, RuntimeInfo};

use crate::{
    cgroup::Layout,
    client::Client,
    engine::Engine,
    error::{failed, refused},
    live,
};

/// Services without which nothing works.
const NEEDED: &[&str] = &[
    "containers",
    "content",
    "diff",
    "leases",
    "snapshots",
    "tasks",
];

/// The snapshotter that makes root file systems; images and volumes made of snapshots have to be in the same one.
pub const SNAPSHOTTER: &str = "overlayfs";

/// The oldest containerd, as major and minor: it finds a shim by its path.
const OLDEST: (u32, u32) = (1, 6);

/// How long an answer to a ping may take.
const PING: Duration = Duration::from_secs(2);

/// Whether containerd answers.
pub(crate) async fn ping(client: &Client) -> Result<(), RuntimeError> {
    let answer = client.with_deadline(Some(PING)).version().version(()).await;
    answer.map_err(refused("ask version of", "containerd"))?;
    Ok(())
}

/// Asks containerd, the OCI runtime and the kernel. An error says what is missing; what is only degraded is a warning.
pub(crate) async fn probe(engine: &Engine) -> Result<RuntimeInfo, RuntimeError> {
    let client = engine.client();
    let version = client
        .version()
        .version(())
        .await
        .map_err(refused("ask version of", "containerd"))?
        .into_inner();
    if numbers(&version.version).is_some_and(|numbers| numbers < OLDEST) {
        return Err(RuntimeError::new(
            RuntimeErrorKind::Unsupported,
            "use",
            format!("containerd {}", version.version),
            format!("it has to be {}.{} or later", OLDEST.0, OLDEST.1),
        ));
    }
    let plugins = client
        .introspection()
        .plugins(PluginsRequest {
            filters: Vec::new(),
        })
        .await
        .map_err(refused("ask plugins of", "containerd"))?
        .into_inner()
        .plugins;
    let working: BTreeSet<(&str, &str)> = plugins
        .iter()
        .filter(|plugin| plugin.init_err.is_none())
        .map(|plugin| (plugin.r#type.as_str(), plugin.id.as_str()))
        .collect();
    for service in NEEDED {
        if !working.contains(&("io.containerd.grpc.v1", service)) {
            let said = plugins
                .iter()
                .find(|plugin| plugin.id == *service)
                .and_then(|plugin| plugin.init_err.as_ref());
            let text = said.map_or_else(
                || "not part of this containerd".to_owned(),
                |error| error.message.clone(),
            );
            return Err(RuntimeError::new(
                RuntimeErrorKind::Unsupported,
                "use service",
                *service,
                text,
            ));
        }
    }
    if !working.contains(&("io.containerd.snapshotter.v1", SNAPSHOTTER)) {
        let said = plugins
            .iter()
            .find(|plugin| plugin.id == SNAPSHOTTER)
            .and_then(|plugin| plugin.init_err.as_ref());
        let text = said.map_or_else(
            || "not part of this containerd".to_owned(),
            |error| error.message.clone(),
        );
        return Err(RuntimeError::new(
            RuntimeErrorKind::Unsupported,
            "use snapshotter",
            SNAPSHOTTER,
            text,
        ));
    }
    let runc = &engine.config().runc;
    let output = tokio::process::Command::new(runc)
        .arg("--version")
        .output()
        .await
        .map_err(failed("run", runc.clone()))?;
    let oci_runtime = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    if !output.status.success() || oci_runtime.is_empty() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(RuntimeError::new(
            RuntimeErrorKind::Unsupported,
            "run",
            format!("{runc} --version"),
            text,
        ));
    }
    let layout = Layout::detect().map_err(failed("read", "/proc/self/mountinfo"))?;
    let live_attach = live::is_supported();
    let mut warnings = Vec::new();
    if layout.mode() == "none" {
        warnings.push("no cgroup hierarchy is mounted: limits cannot be set".to_owned());
    }
    if !live_attach {
        warnings.push("the kernel has no open_tree and move_mount: volumes cannot be attached to running executors".to_owned());
    }
    if numbers(&version.version).is_some_and(|(major, _)| major == 1) {
        warnings.push(format!(
            "containerd {} is past its end of life",
            version.version
        ));
    }
    let isolation = isolation(&mut warnings, engine);
    Ok(RuntimeInfo {
        engine: format!("containerd {}", version.version),
        oci_runtime,
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        cgroups: layout.mode().to_owned(),
        favordynmods: layout.favordynmods(),
        snapshotter: SNAPSHOTTER.to_owned(),
        namespace: engine.places().namespace.clone(),
        live_attach,
        isolation,
        warnings,
    })
}

/// AppArmor profiles made for containers, best first. We load none: that is for the node's owner.
const APPARMOR_PROFILES: [&str; 3] = [
    "portlayer-default",
    "docker-default",
    "cri-containerd.apparmor.d",
];

/// What the host has to keep executors apart. Blocks for a few small files.
fn isolation(warnings: &mut Vec<String>, engine: &Engine) -> HostIsolation {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let capabilities = bounding.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    // "name (mode)", one a line
    let loaded =
        std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let apparmor = APPARMOR_PROFILES.into_iter().find(|wanted| {
        let mut names = loaded.lines().filter_map(|line| line.split(' ').next());
        on && names.any(|name| name == *wanted)
    });
    if on && apparmor.is_none() {
        warnings.push(format!(
            "AppArmor is on and none of {} is loaded: executors run without a profile",
            APPARMOR_PROFILES.join(", ")
        ));
    }
    let (ids, why) = crate::idmap::probe(&engine.places().directory);
    warnings.extend(why);
    let pool = engine.config().disk_pool_bytes > 0;
    if pool && !crate::pool::is_possible() {
        warnings.push("there is no pool of writable layers: btrfs-progs, the loop driver or the kernel's btrfs is missing".to_owned());
    }
    HostIsolation {
        capabilities: capabilities.unwrap_or_default(),
        ids,
        disk: match () {
            () if pool && crate::pool::is_possible() => DiskBound::Pool,
            () if crate::program::can_make("mkfs.ext4") => DiskBound::BlockFile,
            () => DiskBound::None,
        },
        apparmor: apparmor.map(str::to_owned),
    }
}

/// Whether the kernel is of this release or a later one.
pub(crate) fn kernel_has(major: u32, minor: u32) -> bool {
    let system = rustix::system::uname();
    numbers(&system.release().to_string_lossy()).is_some_and(|found| found >= (major, minor))
}

/// Major and minor of a version as containerd says it: `1.6.20~ds1`, `v2.0.0-rc.1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_containerd() {
        assert_eq!(numbers("1.6.20~ds1"), Some((1, 6)));
        assert_eq!(numbers("v2.0.0-rc.1"), Some((2, 0)));
        assert_eq!(numbers("1.10.0"), Some((1, 10)));
        assert!(numbers("1.5.9").unwrap() < OLDEST);
        // One of somebody's own making says what it likes.
        assert_eq!(numbers("unknown"), None);
    }
}
