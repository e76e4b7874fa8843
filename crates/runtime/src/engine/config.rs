//! containerd's configuration, in version 2: read by every containerd from 1.5 on.

use super::Places;

/// Plugins we do not use. Each one left out makes the start faster; `cri` and the cgroup monitor would also cost on every task.
/// (Out-of-memory kills are read from the cgroup: containerd's event for them is lossy, reference/reliability.md finding 7.)
/// Not the runtime `io.containerd.runtime.v1.linux`, unused as it is: without any runtime of version 1, containerd 1.6 has no task service.
const DISABLED: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.internal.v1.restart",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.monitor.task.v1.cgroups",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.nri.v1.nri",
];

/// The text of the file.
pub(super) fn text(places: &Places) -> String {
    let mut file = toml::Table::new();
    let path =
        |name: &str| toml::Value::from(places.directory.join(name).to_string_lossy().into_owned());
    let table = |entries: Vec<(&str, toml::Value)>| -> toml::Value {
        toml::Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    };
    file.insert("version".into(), 2.into());
    file.insert("root".into(), path("root"));
    file.insert("state".into(), path("state"));
    file.insert("oom_score".into(), 0.into());
    file.insert("disabled_plugins".into(), DISABLED.to_vec().into());
    file.insert(
        "grpc".into(),
        table(vec![("address", path("containerd.sock"))]),
    );
    file.insert(
        "ttrpc".into(),
        table(vec![("address", path("containerd.sock.ttrpc"))]),
    );
    file.insert(
        "debug".into(),
        table(vec![("address", "".into()), ("level", "warn".into())]),
    );
    file.insert("metrics".into(), table(vec![("address", "".into())]));
    file.to_string()
}
