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
    if !layout.favordynmods() {
        warnings.push("cgroups are mounted without favordynmods: a start on an idle node takes some 10 ms longer".to_owned());
    }
    if layout.mode() == "none" {
        warnings.push("no cgroup hierarchy is mounted: limits cannot be set".to_owned());
    }
    if !live_attach {
        warnings.push("the kernel has no open_tree and move_mount: volumes cannot be attached to running executors".to_owned());
    }
    if version.version.trim_start_matches('v').starts_with("1.") {
        warnings.push(format!(
            "containerd {} is past its end of life",
            version.version
        ));
    }
    let isolation = isolation(&mut warnings, &engine.places().directory);
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
fn isolation(warnings: &mut Vec<String>, directory: &std::path::Path) -> HostIsolation {
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
    let (ids, why) = crate::idmap::probe(directory);
    warnings.extend(why);
    HostIsolation {
        capabilities: capabilities.unwrap_or_default(),
        ids,
        disk: match crate::e2fs::is_there() {
            true => DiskBound::BlockFile,
            false => DiskBound::None,
        },
        apparmor: apparmor.map(str::to_owned),
    }
}
