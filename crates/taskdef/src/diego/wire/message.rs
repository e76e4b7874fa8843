//! The messages, by field number.

use std::collections::BTreeMap;

use prost::Message;

/// `DesireTaskRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DesireTaskRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) task_definition: Option<TaskDefinition>,
    #[prost(string, tag = "2")]
    pub(super) task_guid: String,
    #[prost(string, tag = "3")]
    pub(super) domain: String,
}

/// `Task`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Task {
    #[prost(message, optional, tag = "1")]
    pub(super) task_definition: Option<TaskDefinition>,
    #[prost(string, tag = "2")]
    pub(super) task_guid: String,
    #[prost(string, tag = "3")]
    pub(super) domain: String,
    #[prost(int64, tag = "4")]
    pub(super) created_at: i64,
    #[prost(int64, tag = "5")]
    pub(super) updated_at: i64,
    #[prost(int64, tag = "6")]
    pub(super) first_completed_at: i64,
    #[prost(int32, tag = "7")]
    pub(super) state: i32,
    #[prost(string, tag = "8")]
    pub(super) cell_id: String,
    #[prost(string, tag = "9")]
    pub(super) result: String,
    #[prost(bool, tag = "10")]
    pub(super) failed: bool,
    #[prost(string, tag = "11")]
    pub(super) failure_reason: String,
    #[prost(int32, tag = "12")]
    pub(super) rejection_count: i32,
    #[prost(string, tag = "13")]
    pub(super) rejection_reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskDefinition {
    #[prost(string, tag = "1")]
    pub(super) rootfs: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) env: Vec<EnvironmentVariable>,
    #[prost(message, optional, tag = "3")]
    pub(super) action: Option<Action>,
    #[prost(int32, tag = "4")]
    pub(super) disk_mb: i32,
    #[prost(int32, tag = "5")]
    pub(super) memory_mb: i32,
    #[prost(uint32, tag = "6")]
    pub(super) cpu_weight: u32,
    #[prost(bool, tag = "7")]
    pub(super) privileged: bool,
    #[prost(string, tag = "8")]
    pub(super) log_source: String,
    #[prost(string, tag = "9")]
    pub(super) log_guid: String,
    #[prost(string, tag = "10")]
    pub(super) metrics_guid: String,
    #[prost(string, tag = "11")]
    pub(super) result_file: String,
    #[prost(string, tag = "12")]
    pub(super) completion_callback_url: String,
    #[prost(string, tag = "13")]
    pub(super) annotation: String,
    #[prost(message, repeated, tag = "14")]
    pub(super) egress_rules: Vec<SecurityGroupRule>,
    #[prost(message, repeated, tag = "15")]
    pub(super) cached_dependencies: Vec<CachedDependency>,
    #[prost(string, tag = "16")]
    pub(super) legacy_download_user: String,
    #[prost(string, tag = "17")]
    pub(super) trusted_system_certificates_path: String,
    #[prost(message, repeated, tag = "18")]
    pub(super) volume_mounts: Vec<VolumeMount>,
    #[prost(message, optional, tag = "19")]
    pub(super) network: Option<Network>,
    #[prost(string, repeated, tag = "20")]
    pub(super) placement_tags: Vec<String>,
    #[prost(int32, tag = "21")]
    pub(super) max_pids: i32,
    #[prost(message, optional, tag = "22")]
    pub(super) certificate_properties: Option<CertificateProperties>,
    #[prost(string, tag = "23")]
    pub(super) image_username: String,
    #[prost(string, tag = "24")]
    pub(super) image_password: String,
    #[prost(message, repeated, tag = "25")]
    pub(super) image_layers: Vec<ImageLayer>,
    #[prost(message, optional, tag = "26")]
    pub(super) log_rate_limit: Option<LogRateLimit>,
    #[prost(btree_map = "string, message", tag = "27")]
    pub(super) metric_tags: BTreeMap<String, MetricTagValue>,
    #[prost(message, repeated, tag = "28")]
    pub(super) volume_mounted_files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EnvironmentVariable {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Action {
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) download: Option<Box<DownloadAction>>,
    #[prost(message, optional, boxed, tag = "2")]
    pub(super) upload: Option<Box<UploadAction>>,
    #[prost(message, optional, boxed, tag = "3")]
    pub(super) run: Option<Box<RunAction>>,
    #[prost(message, optional, boxed, tag = "4")]
    pub(super) timeout: Option<Box<TimeoutAction>>,
    #[prost(message, optional, boxed, tag = "5")]
    pub(super) emit_progress: Option<Box<EmitProgressAction>>,
    #[prost(message, optional, boxed, tag = "6")]
    pub(super) r#try: Option<Box<TryAction>>,
    #[prost(message, optional, boxed, tag = "7")]
    pub(super) parallel: Option<Box<ActionList>>,
    #[prost(message, optional, boxed, tag = "8")]
    pub(super) serial: Option<Box<ActionList>>,
    #[prost(message, optional, boxed, tag = "9")]
    pub(super) codependent: Option<Box<ActionList>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DownloadAction {
    #[prost(string, tag = "1")]
    pub(super) artifact: String,
    #[prost(string, tag = "2")]
    pub(super) from: String,
    #[prost(string, tag = "3")]
    pub(super) to: String,
    #[prost(string, tag = "4")]
    pub(super) cache_key: String,
    #[prost(string, tag = "5")]
    pub(super) log_source: String,
    #[prost(string, tag = "6")]
    pub(super) user: String,
    #[prost(string, tag = "7")]
    pub(super) checksum_algorithm: String,
    #[prost(string, tag = "8")]
    pub(super) checksum_value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UploadAction {
    #[prost(string, tag = "1")]
    pub(super) artifact: String,
    #[prost(string, tag = "2")]
    pub(super) from: String,
    #[prost(string, tag = "3")]
    pub(super) to: String,
    #[prost(string, tag = "4")]
    pub(super) log_source: String,
    #[prost(string, tag = "5")]
    pub(super) user: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RunAction {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) args: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) dir: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) env: Vec<EnvironmentVariable>,
    #[prost(message, optional, tag = "5")]
    pub(super) resource_limits: Option<ResourceLimits>,
    #[prost(string, tag = "6")]
    pub(super) user: String,
    #[prost(string, tag = "7")]
    pub(super) log_source: String,
    #[prost(bool, tag = "8")]
    pub(super) suppress_log_output: bool,
    #[prost(message, repeated, tag = "9")]
    pub(super) volume_mounted_files: Vec<File>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ResourceLimits {
    #[prost(uint64, optional, tag = "1")]
    pub(super) nofile: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) nproc: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeoutAction {
    #[prost(message, optional, tag = "1")]
    pub(super) action: Option<Action>,
    #[prost(int64, tag = "2")]
    pub(super) deprecated_timeout_ns: i64,
    #[prost(string, tag = "3")]
    pub(super) log_source: String,
    #[prost(int64, tag = "4")]
    pub(super) timeout_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EmitProgressAction {
    #[prost(message, optional, tag = "1")]
    pub(super) action: Option<Action>,
    #[prost(string, tag = "2")]
    pub(super) start_message: String,
    #[prost(string, tag = "3")]
    pub(super) success_message: String,
    #[prost(string, tag = "4")]
    pub(super) failure_message_prefix: String,
    #[prost(string, tag = "5")]
    pub(super) log_source: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TryAction {
    #[prost(message, optional, tag = "1")]
    pub(super) action: Option<Action>,
    #[prost(string, tag = "2")]
    pub(super) log_source: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionList {
    #[prost(message, repeated, tag = "1")]
    pub(super) actions: Vec<Action>,
    #[prost(string, tag = "2")]
    pub(super) log_source: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SecurityGroupRule {
    #[prost(string, tag = "1")]
    pub(super) protocol: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) destinations: Vec<String>,
    #[prost(uint32, repeated, packed = "false", tag = "3")]
    pub(super) ports: Vec<u32>,
    #[prost(message, optional, tag = "4")]
    pub(super) port_range: Option<PortRange>,
    #[prost(message, optional, tag = "5")]
    pub(super) icmp_info: Option<IcmpInfo>,
    #[prost(bool, tag = "6")]
    pub(super) log: bool,
    #[prost(string, repeated, tag = "7")]
    pub(super) annotations: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct PortRange {
    #[prost(uint32, tag = "1")]
    pub(super) start: u32,
    #[prost(uint32, tag = "2")]
    pub(super) end: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct IcmpInfo {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(int32, tag = "2")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CachedDependency {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) from: String,
    #[prost(string, tag = "3")]
    pub(super) to: String,
    #[prost(string, tag = "4")]
    pub(super) cache_key: String,
    #[prost(string, tag = "5")]
    pub(super) log_source: String,
    #[prost(string, tag = "6")]
    pub(super) checksum_algorithm: String,
    #[prost(string, tag = "7")]
    pub(super) checksum_value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VolumeMount {
    #[prost(string, tag = "1")]
    pub(super) driver: String,
    #[prost(string, tag = "3")]
    pub(super) container_dir: String,
    #[prost(string, tag = "6")]
    pub(super) mode: String,
    #[prost(message, optional, tag = "7")]
    pub(super) shared: Option<SharedDevice>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SharedDevice {
    #[prost(string, tag = "1")]
    pub(super) volume_id: String,
    #[prost(string, tag = "2")]
    pub(super) mount_config: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Network {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(super) properties: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CertificateProperties {
    #[prost(string, repeated, tag = "1")]
    pub(super) organizational_unit: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageLayer {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) url: String,
    #[prost(string, tag = "3")]
    pub(super) destination_path: String,
    #[prost(int32, tag = "4")]
    pub(super) layer_type: i32,
    #[prost(int32, tag = "5")]
    pub(super) media_type: i32,
    #[prost(int32, tag = "6")]
    pub(super) digest_algorithm: i32,
    #[prost(string, tag = "7")]
    pub(super) digest_value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct LogRateLimit {
    #[prost(int64, tag = "1")]
    pub(super) bytes_per_second: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricTagValue {
    #[prost(string, tag = "1")]
    pub(super) fixed: String,
    #[prost(int32, tag = "2")]
    pub(super) dynamic: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(string, tag = "2")]
    pub(super) content: String,
}
