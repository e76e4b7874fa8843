//! An engine without containers: deleting executors is all these tests ask of one.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::element::ElementId;
use crate::runtime::*;

pub(super) struct Idle;

type Answer<T> = Result<T, RuntimeError>;

fn no<T>() -> Answer<T> {
    Err(RuntimeError::new(
        RuntimeErrorKind::Unsupported,
        "ask",
        "the idle engine",
        "",
    ))
}

#[async_trait]
#[rustfmt::skip]
impl Runtime for Idle {
    async fn ping(&self) -> Answer<()> { Ok(()) }
    async fn info(&self) -> Answer<RuntimeInfo> {
        Ok(RuntimeInfo {
            engine: "idle".into(),
            oci_runtime: "none".into(),
            kernel: "none".into(),
            cgroups: "v2".into(),
            favordynmods: false,
            snapshotter: "none".into(),
            namespace: "test".into(),
            live_attach: false,
            isolation: crate::runtime::HostIsolation {
                capabilities: u64::MAX,
                ids: crate::runtime::IdMapping::Mapped,
                disk: crate::runtime::DiskBound::BlockFile,
                ..Default::default()
            },
            warnings: Vec::new(),
        })
    }
    async fn begin(&self, _: &Scope) -> Answer<()> { no() }
    async fn end(&self, _: &Scope) -> Answer<()> { Ok(()) }
    async fn prepare_root(&self, _: &Scope, _: &ContainerId, _: &RootPlan) -> Answer<()> { no() }
    async fn remove_root(&self, _: &ContainerId) -> Answer<()> { Ok(()) }
    async fn check_mounts(&self, _: &ContainerPlan) -> Answer<()> { no() }
    async fn create_container(&self, _: &Scope, _: &ContainerPlan, _: &ProcessPlan) -> Answer<()> { no() }
    async fn delete_container(&self, _: &ContainerId) -> Answer<()> { Ok(()) }
    async fn create_process(&self, _: &ProcessPlan) -> Answer<()> { no() }
    async fn start_process(&self, _: &ProcessId, _: bool) -> Answer<()> { no() }
    async fn wait_process(&self, _: &ProcessId, _: bool) -> Answer<ProcessExit> { no() }
    async fn delete_process(&self, _: &ProcessId, _: bool, _: bool) -> Answer<()> { Ok(()) }
    async fn signal(&self, _: &ProcessId, _: bool, _: i32, _: SignalScope) -> Answer<Delivery> { no() }
    async fn stats(&self, _: &ContainerId) -> Answer<ContainerStats> { no() }
    async fn set_paused(&self, _: &ContainerId, _: bool) -> Answer<Delivery> { no() }
    async fn process_state(&self, _: &ProcessId, _: bool) -> Answer<ProcessState> { Ok(ProcessState::Unknown) }
    async fn attach_mount(&self, _: &ContainerId, _: &MountPlan) -> Answer<()> { no() }
    async fn detach_mount(&self, _: &ContainerId, _: &str) -> Answer<()> { Ok(()) }
    async fn connect(&self, _: &ContainerId, _: &BridgePlan) -> Answer<()> { no() }
    async fn disconnect(&self, _: &ContainerId) -> Answer<()> { Ok(()) }
    async fn restore_networks(&self, _: &[(ContainerId, BridgePlan)]) -> Answer<()> { Ok(()) }
    async fn write_stdin(&self, _: &ProcessId, _: bool, _: InputStream) -> Answer<()> { no() }
    async fn resize(&self, _: &ProcessId, _: bool, _: u16, _: u16) -> Answer<()> { no() }
    async fn logs(&self, _: &LogQuery) -> Answer<LogReader> { no() }
    async fn remove_logs(&self, _: &ElementId) -> Answer<()> { Ok(()) }
    async fn list(&self) -> Answer<Vec<FoundContainer>> { Ok(Vec::new()) }
    async fn purge(&self, _: &ContainerId) -> Answer<()> { Ok(()) }
    async fn audit(&self) -> Answer<Vec<Finding>> { Ok(Vec::new()) }
    async fn sweep(&self, _: &Finding) -> Answer<()> { Ok(()) }
    fn state_dir(&self) -> PathBuf { PathBuf::from("/nonexistent") }
}
