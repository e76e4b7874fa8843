//! Diego's task definition with Diego's own names (`bbs:models/*.proto`): what its tools send and print as JSON.
//!
//! Foreign names and units end here: [`plan`](mod@super::plan) turns them into ours. A list that may be absent *or* empty
//! with different meaning is an `Option`; a `null` inside a list of actions is a `None`, because Diego names its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a client desires: a guid, a domain and the definition, flat as `cfdot create-task` takes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DesiredTask {
    /// Unique name of the task: `[a-zA-Z0-9_-]+`.
    pub task_guid: String,
    /// Group of tasks; not empty.
    pub domain: String,
    /// What to do; absent only where a nested form had none.
    #[serde(flatten)]
    pub definition: Option<Box<TaskDefinition>>,
}

/// `bbs:models/task.proto`, message TaskDefinition. Comments give the number of each field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskDefinition {
    /// 1: `preloaded:NAME`, `preloaded+layer:NAME?...`, `docker://[host]/path[#tag]`.
    pub rootfs: String,
    /// 2: environment of everything in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvironmentVariable>,
    /// 3: what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// 4: quota of the writable layer in MiB; 0 = none.
    pub disk_mb: i32,
    /// 5: memory in MiB; 0 = unlimited.
    pub memory_mb: i32,
    /// 6: relative share of the CPU, 1 to 100; 0 = 100.
    pub cpu_weight: u32,
    /// 7: without a user name space.
    pub privileged: bool,
    /// 8: source of log lines; empty = `LOG`.
    pub log_source: String,
    /// 9: log stream; empty = nothing is logged.
    pub log_guid: String,
    /// 10: metric stream.
    pub metrics_guid: String,
    /// 11: file whose content is the result.
    pub result_file: String,
    /// 12: told when the task completed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub completion_callback_url: String,
    /// 13: opaque, at most 10240 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub annotation: String,
    /// 14: what the task may reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_rules: Vec<SecurityGroupRule>,
    /// 15: archives shared read-only between tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cached_dependencies: Vec<CachedDependency>,
    /// 16: owner of what exclusive layers extract.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub legacy_download_user: String,
    /// 17: where the operator's certificates appear.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trusted_system_certificates_path: String,
    /// 18: volumes of drivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// 19: properties for the network provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// 20: tags the node must have.
    #[serde(rename = "placement_tags", skip_serializing_if = "Vec::is_empty")]
    pub placement_tags: Vec<String>,
    /// 21: most processes; 0 = unlimited.
    pub max_pids: i32,
    /// 22: for instance identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_properties: Option<CertificateProperties>,
    /// 23: registry credentials.
    pub image_username: String,
    /// 24: registry credentials.
    pub image_password: String,
    /// 25: archives put into the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_layers: Vec<ImageLayer>,
    /// 26: bound of log output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_rate_limit: Option<LogRateLimit>,
    /// 27: tags of metrics.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_tags: BTreeMap<String, MetricTagValue>,
    /// 28: files below /etc/cf-service-bindings.
    pub volume_mounted_files: Vec<File>,
}

/// A variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentVariable {
    /// 1.
    pub name: String,
    /// 2.
    pub value: String,
}

/// The wrapper of an action. Not a choice in the protocol: several may be set, which we refuse.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<Box<DownloadAction>>,
    /// 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<Box<UploadAction>>,
    /// 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<RunAction>>,
    /// 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Box<TimeoutAction>>,
    /// 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emit_progress: Option<Box<EmitProgressAction>>,
    /// 6.
    #[serde(rename = "try", skip_serializing_if = "Option::is_none")]
    pub r#try: Option<Box<TryAction>>,
    /// 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Box<ActionList>>,
    /// 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Box<ActionList>>,
    /// 9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codependent: Option<Box<ActionList>>,
}

/// One kind of action, borrowed from its wrapper.
#[derive(Debug, Clone, Copy)]
pub enum ActionKind<'a> {
    /// Fetch an archive and extract it in the container.
    Download(&'a DownloadAction),
    /// Send a file of the container.
    Upload(&'a UploadAction),
    /// Run a process.
    Run(&'a RunAction),
    /// Bound the time of an action.
    Timeout(&'a TimeoutAction),
    /// Say when an action begins and ends.
    EmitProgress(&'a EmitProgressAction),
    /// Go on whatever an action does.
    Try(&'a TryAction),
    /// All at once.
    Parallel(&'a ActionList),
    /// One after the other.
    Serial(&'a ActionList),
    /// All at once, none without the others.
    Codependent(&'a ActionList),
}

impl ActionKind<'_> {
    /// The name of the field in the wrapper.
    pub fn name(&self) -> &'static str {
        match self {
            ActionKind::Download(_) => "download",
            ActionKind::Upload(_) => "upload",
            ActionKind::Run(_) => "run",
            ActionKind::Timeout(_) => "timeout",
            ActionKind::EmitProgress(_) => "emit_progress",
            ActionKind::Try(_) => "try",
            ActionKind::Parallel(_) => "parallel",
            ActionKind::Serial(_) => "serial",
            ActionKind::Codependent(_) => "codependent",
        }
    }
}

impl Action {
    /// Every kind that is set, in the order of the protocol (Diego looks only at the first).
    pub fn kinds(&self) -> Vec<ActionKind<'_>> {
        let mut kinds = Vec::new();
        kinds.extend(self.download.as_deref().map(ActionKind::Download));
        kinds.extend(self.upload.as_deref().map(ActionKind::Upload));
        kinds.extend(self.run.as_deref().map(ActionKind::Run));
        kinds.extend(self.timeout.as_deref().map(ActionKind::Timeout));
        kinds.extend(self.emit_progress.as_deref().map(ActionKind::EmitProgress));
        kinds.extend(self.r#try.as_deref().map(ActionKind::Try));
        kinds.extend(self.parallel.as_deref().map(ActionKind::Parallel));
        kinds.extend(self.serial.as_deref().map(ActionKind::Serial));
        kinds.extend(self.codependent.as_deref().map(ActionKind::Codependent));
        kinds
    }
}

/// Fetches an archive on the host and extracts it in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownloadAction {
    /// 1: name for log lines; empty = silent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub artifact: String,
    /// 2: URL.
    pub from: String,
    /// 3: directory in the container; relative to the user's home.
    pub to: String,
    /// 4: key in the cache of the node; empty = not cached.
    pub cache_key: String,
    /// 5: source of log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
    /// 6: owner of what is extracted.
    pub user: String,
    /// 7: md5, sha1 or sha256, in any case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum_algorithm: String,
    /// 8: hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum_value: String,
}

/// Sends one file of the container by POST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadAction {
    /// 1: name for log lines; empty = silent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub artifact: String,
    /// 2: path in the container; relative to the user's home.
    pub from: String,
    /// 3: URL.
    pub to: String,
    /// 4: source of log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
    /// 5: who must be able to read it.
    pub user: String,
}

/// Runs a process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunAction {
    /// 1: program, looked up in PATH.
    pub path: String,
    /// 2: arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// 3: working directory; empty = the user's home.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// 4: environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvironmentVariable>,
    /// 5: limits of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<ResourceLimits>,
    /// 6: name, uid, uid:gid or name:group.
    pub user: String,
    /// 7: source of log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
    /// 8: no output, no exit line.
    pub suppress_log_output: bool,
    /// 9: in the protocol; Diego's executor does not read it and neither do we.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounted_files: Vec<File>,
}

/// Limits of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// 1: open files, soft and hard; absent = inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
    /// 2: deprecated and ignored, as by Diego.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nproc: Option<u64>,
}

/// Bounds the time of an action.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutAction {
    /// 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// 2: nanoseconds, deprecated and not read.
    #[serde(rename = "timeout", skip_serializing_if = "Option::is_none")]
    pub deprecated_timeout_ns: Option<i64>,
    /// 3: source of the action's log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
    /// 4: milliseconds, at least 1.
    pub timeout_ms: i64,
}

/// Says when an action begins and ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmitProgressAction {
    /// 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// 2: on standard output before it.
    pub start_message: String,
    /// 3: on standard output after it.
    pub success_message: String,
    /// 4: on standard error when it failed; empty = nothing.
    pub failure_message_prefix: String,
    /// 5: source of these messages only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
}

/// Goes on whatever an action does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TryAction {
    /// 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// 2: source of the action's log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
}

/// Parallel, serial and codependent have the same fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActionList {
    /// 1: at least one.
    pub actions: Vec<Option<Action>>,
    /// 2: source of the actions' log lines (serial ignores it).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_source: String,
}

/// What the task may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupRule {
    /// 1: tcp, udp, icmp, icmpv6 or all.
    pub protocol: String,
    /// 2: each a comma list of addresses, networks and ranges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u32>>,
    /// 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortRange>,
    /// 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_info: Option<IcmpInfo>,
    /// 6: log new flows.
    pub log: bool,
    /// 7: ignored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

/// Ports, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// 1.
    pub start: u32,
    /// 2.
    pub end: u32,
}

/// A kind of ICMP message; -1 = any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpInfo {
    /// 1.
    #[serde(rename = "type")]
    pub kind: i32,
    /// 2.
    pub code: i32,
}

/// An archive shared read-only between tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedDependency {
    /// 1: name for log lines; empty = silent.
    pub name: String,
    /// 2: URL.
    pub from: String,
    /// 3: directory in the container.
    pub to: String,
    /// 4: key in the cache.
    pub cache_key: String,
    /// 5: source of log lines.
    pub log_source: String,
    /// 6.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum_algorithm: String,
    /// 7.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub checksum_value: String,
}

/// A volume of a driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// 1: name of the driver.
    pub driver: String,
    /// 3: directory in the container.
    pub container_dir: String,
    /// 6: `r` or `rw`.
    pub mode: String,
    /// 7: which volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedDevice>,
}

/// Which volume of a driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedDevice {
    /// 1.
    pub volume_id: String,
    /// 2: JSON as text, for the driver.
    pub mount_config: String,
}

/// Properties for the network provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// For instance identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateProperties {
    /// 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organizational_unit: Vec<String>,
}

/// An archive put into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageLayer {
    /// 1: name for log lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// 2.
    pub url: String,
    /// 3.
    pub destination_path: String,
    /// 4: `SHARED` or `EXCLUSIVE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_type: Option<LayerType>,
    /// 5: `TGZ`, `TAR` or `ZIP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// 6: `SHA256` or `SHA512`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_algorithm: Option<DigestAlgorithm>,
    /// 7: hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest_value: String,
}

/// Whether a layer is shared between tasks. The invalid values have names in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerType {
    /// 0: as if absent.
    #[serde(rename = "LayerTypeInvalid")]
    Invalid,
    /// 1: read-only, shared.
    #[serde(rename = "SHARED")]
    Shared,
    /// 2: writable, the task's own.
    #[serde(rename = "EXCLUSIVE")]
    Exclusive,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaType {
    /// 0: as if absent.
    #[serde(rename = "MediaTypeInvalid")]
    Invalid,
    /// 1: gzip of tar.
    #[serde(rename = "TGZ")]
    Tgz,
    /// 2: tar.
    #[serde(rename = "TAR")]
    Tar,
    /// 3: zip.
    #[serde(rename = "ZIP")]
    Zip,
}

/// The sum of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// 0: as if absent.
    #[serde(rename = "DigestAlgorithmInvalid")]
    Invalid,
    /// 1.
    #[serde(rename = "SHA256")]
    Sha256,
    /// 2.
    #[serde(rename = "SHA512")]
    Sha512,
}

/// Bound of log output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRateLimit {
    /// 1: -1 = unlimited, 0 = nothing is logged.
    pub bytes_per_second: i64,
}

/// Value of a metric tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricTagValue {
    /// 1: fixed text.
    #[serde(rename = "static", skip_serializing_if = "String::is_empty")]
    pub fixed: String,
    /// 2: filled in per instance; tasks have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicValue>,
}

/// A value filled in per instance of a long-running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DynamicValue {
    /// 0: as if absent.
    #[serde(rename = "DynamicValueInvalid")]
    Invalid,
    /// 1.
    #[serde(rename = "INDEX")]
    Index,
    /// 2.
    #[serde(rename = "INSTANCE_GUID")]
    InstanceGuid,
}

/// A file put into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// 1: below /etc/cf-service-bindings.
    pub path: String,
    /// 2.
    pub content: String,
}
