//! The verbs over stores in memory.

mod engine;
mod health;
mod ids;
mod lists;
mod many;
mod quarantine;
mod refusals;
mod verbs;
mod workflows;

use std::io::Cursor;
use std::sync::Arc;

use crate::element::{Checksum, ElementId, ImageSpec, Kind, NewElement, Spec, State, VolumeSpec};
use crate::event::{Change, Event};
use crate::ledger::{AuditRow, LedgerConfig};
use crate::store::memory::MemoryStore;
use crate::store::{Location, Policy, Store, StoreCapabilities};
use crate::task::{ExecutorSpec, TaskSpec};
use crate::{Config, PortLayer};

/// A port layer in a directory of its own, with one location of every sort.
struct Node {
    layer: PortLayer,
    images: MemoryStore,
    volumes: MemoryStore,
    directory: tempfile::TempDir,
}

fn locations(images: &MemoryStore, volumes: &MemoryStore) -> Vec<Location> {
    let location = |name: &str, kinds: &[Kind], policy, store: Option<Arc<dyn Store>>| Location {
        name: name.into(),
        kinds: kinds.to_vec(),
        policy,
        store,
    };
    let none = MemoryStore::new(StoreCapabilities {
        parent_image: false,
        parent_volume: false,
        data: false,
        bounded: false,
        persistent: true,
    });
    vec![
        location(
            "images",
            &[Kind::Image],
            Policy::ReadWrite,
            Some(Arc::new(images.clone())),
        ),
        location(
            "vols",
            &[Kind::Volume],
            Policy::ReadWrite,
            Some(Arc::new(volumes.clone())),
        ),
        location(
            "nfs",
            &[Kind::Volume],
            Policy::ReadWrite,
            Some(Arc::new(none.clone())),
        ),
        location(
            "default",
            &[Kind::Task, Kind::Executor],
            Policy::ReadWrite,
            None,
        ),
        location(
            "fixed",
            &Kind::ALL,
            Policy::ReadOnly,
            Some(Arc::new(none.clone())),
        ),
        location(
            "append",
            &[Kind::Task, Kind::Volume],
            Policy::CreateOnly,
            Some(Arc::new(none)),
        ),
        location(
            "bare",
            &[Kind::Image, Kind::Network, Kind::Log],
            Policy::ReadWrite,
            None,
        ),
    ]
}

impl Node {
    async fn new() -> Self {
        let (images, volumes) = (MemoryStore::default(), MemoryStore::default());
        let directory = tempfile::tempdir().unwrap();
        let layer = open(&directory, &images, &volumes).await;
        Self {
            layer,
            images,
            volumes,
            directory,
        }
    }

    /// Closes the port layer and opens it over the same ledger and stores.
    async fn reopen(self) -> Self {
        let Self {
            layer,
            images,
            volumes,
            directory,
        } = self;
        drop(layer);
        let layer = open(&directory, &images, &volumes).await;
        Self {
            layer,
            images,
            volumes,
            directory,
        }
    }

    fn last(&self) -> u64 {
        self.layer.shared.ledger.last_sequence()
    }

    /// The events after a sequence, as `change id`.
    fn events(&self, after: u64) -> Vec<String> {
        let events = self.layer.shared.ledger.events(after + 1, 1000).unwrap();
        events.iter().map(said).collect()
    }

    fn audit(&self, id: &ElementId) -> Vec<AuditRow> {
        self.layer.shared.ledger.audit_log(id).unwrap()
    }

    /// Records, events and bytes: equal before and after means that nothing happened.
    fn fingerprint(&self) -> (u64, usize, usize) {
        (self.last(), self.images.len(), self.volumes.len())
    }

    /// Marks an executor's record as the commit of a composition would.
    async fn compose(&self, executor: &ElementId, state: State, bound: &[&ElementId]) {
        use crate::compose::{JoinHow, Joined, Role};
        let (executor, bound) = (
            executor.clone(),
            bound.iter().map(|id| (*id).clone()).collect::<Vec<_>>(),
        );
        let written: Result<(), crate::ledger::LedgerError> = self
            .layer
            .shared
            .ledger
            .write(move |txn| {
                let mut record = txn.get(&executor)?.unwrap();
                let crate::element::Body::Executor(body) = &mut record.body else {
                    panic!("no executor");
                };
                for id in bound {
                    txn.link(crate::ledger::Index::References, &id, &executor);
                    let joined = Joined {
                        role: Role::Part(JoinHow::volume("/v")),
                        bound: true,
                        revision: 1,
                        changed: 1,
                    };
                    body.composition.joined.insert(id, joined);
                }
                record.state = state;
                txn.put(&record)
            })
            .await;
        written.unwrap();
    }
}

async fn open(
    directory: &tempfile::TempDir,
    images: &MemoryStore,
    volumes: &MemoryStore,
) -> PortLayer {
    let config = Config {
        ledger: LedgerConfig::new(directory.path().join("ledger")),
        networks: Vec::new(),
        locations: locations(images, volumes),
        runtime: Arc::new(engine::Idle),
    };
    PortLayer::open(config).await.unwrap()
}

fn said(event: &Event) -> String {
    match &event.change {
        Change::Inherited { child } => format!("inherited {} {child}", event.id),
        Change::Modified { keys } => format!("modified {} {}", event.id, keys.join("+")),
        change => format!("{} {}", change.as_str(), event.id),
    }
}

fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

fn task(text: &str) -> NewElement {
    let spec = TaskSpec {
        argv: vec!["/bin/true".into()],
        ..TaskSpec::default()
    };
    NewElement::new(id(text), Spec::Task(Box::new(spec)))
}

fn executor(text: &str) -> NewElement {
    NewElement::new(id(text), Spec::Executor(Box::<ExecutorSpec>::default()))
}

fn volume(text: &str) -> NewElement {
    NewElement::new(id(text), Spec::Volume(VolumeSpec::default()))
}

/// An image with data.
fn image(text: &str) -> NewElement {
    bare_image(text).data(Cursor::new(text.as_bytes().to_vec()))
}

/// An image without data.
fn bare_image(text: &str) -> NewElement {
    NewElement::new(id(text), Spec::Image(ImageSpec::default()))
}

fn sum(text: &str) -> Checksum {
    Checksum::of(text.as_bytes())
}
