//! The requests and answers, by field number. A task is written by `portlayer_taskdef`: in here it is its bytes, which
//! protobuf cannot tell from the message.

use std::collections::BTreeMap;

use prost::Message;

/// `Error`: types are those of `bbs:models/error.proto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Error {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PingResponse {
    #[prost(bool, tag = "1")]
    pub(crate) available: bool,
}

/// `TaskLifecycleResponse`, `UpsertDomainResponse`, and every answer that has only failed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DomainsResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) error: Option<Error>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) domains: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpsertDomainRequest {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(uint32, tag = "2")]
    pub(crate) ttl: u32,
}

/// `TaskGuidRequest` and `TaskByGuidRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GuidRequest {
    #[prost(string, tag = "1")]
    pub(crate) task_guid: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TasksRequest {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(string, tag = "2")]
    pub(crate) cell_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TasksResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) error: Option<Error>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) tasks: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) error: Option<Error>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) task: Option<Vec<u8>>,
}

/// `TaskCreatedEvent` and `TaskRemovedEvent`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OneTaskEvent {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) task: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TaskChangedEvent {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) before: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) after: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct CellCapacity {
    #[prost(int32, tag = "1")]
    pub(crate) memory_mb: i32,
    #[prost(int32, tag = "2")]
    pub(crate) disk_mb: i32,
    #[prost(int32, tag = "3")]
    pub(crate) containers: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Provider {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) properties: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CellPresence {
    #[prost(string, tag = "1")]
    pub(crate) cell_id: String,
    #[prost(string, tag = "2")]
    pub(crate) rep_address: String,
    #[prost(string, tag = "3")]
    pub(crate) zone: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) capacity: Option<CellCapacity>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) rootfs_providers: Vec<Provider>,
    #[prost(string, repeated, tag = "6")]
    pub(crate) placement_tags: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(crate) optional_placement_tags: Vec<String>,
    #[prost(string, tag = "8")]
    pub(crate) rep_url: String,
    #[prost(btree_map = "string, string", tag = "9")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CellsResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) error: Option<Error>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) cells: Vec<CellPresence>,
}
