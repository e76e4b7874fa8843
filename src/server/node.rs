//! `portlayer.v1.NodeService`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use portlayer::PortLayer;
use portlayer::element::{Kind, ListQuery, MAX_PAGE, Projection};
use portlayer_client::node::{Diagnostics, NodeInfo, Swept};
use portlayer_client::wire::{self, Fault, Wire, status_of};
use portlayer_proto::v1;
use portlayer_proto::v1::node_service_server::NodeService;
use tonic::{Request, Response, Status};

use super::{Shared, id_in, layer_of, optional_id_in};

pub(super) struct Node(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl NodeService for Node {
    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        let layer = layer_of(&request)?;
        let counts = match request.get_ref().count {
            true => count(&layer).await?,
            false => BTreeMap::new(),
        };
        let info = NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.0.facts.data_dir.clone(),
            engine: layer.engine_info().await.map_err(status_of)?,
            locations: self.0.facts.locations.clone(),
            counts,
            last_sequence: layer.last_sequence(),
        };
        Ok(Response::new(info.into_wire()))
    }

    async fn diagnostics(
        &self,
        _: Request<v1::DiagnosticsRequest>,
    ) -> Result<Response<v1::DiagnosticsResponse>, Status> {
        let process = tokio::task::spawn_blocking(Process::look).await;
        let process = process.map_err(|error| Status::internal(error.to_string()))?;
        let diagnostics = Diagnostics {
            started: self.0.started,
            pid: std::process::id(),
            descriptors: process.descriptors,
            threads: process.threads,
            memory_bytes: process.memory_bytes,
            calls: self.0.calls.load(Ordering::Relaxed),
            subscriptions: self.0.subscriptions.load(Ordering::Relaxed),
            engine_available: self.0.engine_available.load(Ordering::Relaxed),
            draining: self.0.drain.is_cancelled(),
            places: self.0.facts.places.clone(),
        };
        Ok(Response::new(diagnostics.into_wire()))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let report = layer_of(&request)?.verify().await.map_err(status_of)?;
        Ok(Response::new(report.into_wire()))
    }

    async fn audit(
        &self,
        request: Request<v1::AuditRequest>,
    ) -> Result<Response<v1::AuditResponse>, Status> {
        let report = layer_of(&request)?.audit().await.map_err(status_of)?;
        Ok(Response::new(report.into_wire()))
    }

    async fn exits(
        &self,
        request: Request<v1::ExitsRequest>,
    ) -> Result<Response<v1::ExitsResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = optional_id_in("task", message.task.as_deref())?;
        let exits = layer.exits(&executor, task.as_ref()).await;
        Ok(Response::new(v1::ExitsResponse {
            exits: wire::all_into(exits.map_err(status_of)?),
        }))
    }

    async fn sweep(
        &self,
        request: Request<v1::SweepRequest>,
    ) -> Result<Response<v1::SweepResponse>, Status> {
        let swept = layer_of(&request)?.sweep().await.map_err(status_of)?;
        let swept = swept.into_iter().map(|swept| Swept {
            location: swept.location,
            removed: swept.removed,
            fault: swept.error.map(Fault::of),
        });
        Ok(Response::new(v1::SweepResponse {
            swept: wire::all_into(swept),
        }))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        layer_of(&request)?.settle().await;
        Ok(Response::new(v1::SettleResponse {}))
    }
}

async fn count(layer: &PortLayer) -> Result<BTreeMap<Kind, u64>, Status> {
    let mut counts = BTreeMap::new();
    for kind in Kind::ALL {
        let mut query = ListQuery {
            kind: Some(kind),
            limit: MAX_PAGE,
            hidden: true,
            projection: Projection::without_metadata(),
            ..ListQuery::default()
        };
        loop {
            let page = layer.list(query.clone()).await.map_err(status_of)?;
            *counts.entry(kind).or_insert(0) += page.items.len() as u64;
            if page.next.is_none() {
                break;
            }
            query.page = page.next;
        }
    }
    Ok(counts)
}

/// What `/proc` tells of this process; 0 where it does not.
#[derive(Default)]
struct Process {
    descriptors: u64,
    threads: u64,
    memory_bytes: u64,
}

impl Process {
    fn look() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            descriptors: descriptors as u64,
            threads: number("Threads:"),
            // In KiB there.
            memory_bytes: number("VmRSS:") * 1024,
        }
    }
}
