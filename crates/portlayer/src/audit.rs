//! The audit: everything of ours that the engine, the kernel and the stores hold, compared with the ledger.
//!
//! The list comes from there and the owners from here; what has no owner is a leak. Take it on a quiet node: what a
//! create or commit in flight has just made looks like a leak until its record is durable.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::PortLayer;
use crate::compose::Intent;
use crate::element::{Body, ElementId, Kind, Record, State, health};
use crate::ledger::LedgerError;
use crate::runtime::{ContainerId, Finding, FindingClass, RuntimeError};
use crate::store::StoreError;

/// How many records are read at once while the owners are collected.
const PAGE: usize = 1000;

/// The audit could not look where it must, so it says nothing.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The engine or the kernel did not answer.
    #[error("listing the engine and the kernel failed")]
    Runtime(#[from] RuntimeError),
    /// A location that can be reached did not answer.
    #[error("listing location {location:?} failed")]
    Store {
        /// The location.
        location: String,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The ledger did not answer.
    #[error("reading the ledger failed")]
    Ledger(#[from] LedgerError),
}

/// One thing that is there, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// The thing.
    pub finding: Finding,
    /// The element that owns it; `<kind>://<location>/_` for what belongs to a whole location; `None` = a leak.
    pub owner: Option<ElementId>,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Everything that is there, sorted by class and name.
    pub found: Vec<Audited>,
    /// Locations that are away, with the reason: nothing is known of what they hold.
    pub away: BTreeMap<String, String>,
}

impl AuditReport {
    /// What nobody owns.
    pub fn leaks(&self) -> impl Iterator<Item = &Finding> {
        self.found
            .iter()
            .filter(|audited| audited.owner.is_none())
            .map(|audited| &audited.finding)
    }

    /// Nothing is leaked, as far as could be seen (see [`AuditReport::away`]).
    pub fn is_clean(&self) -> bool {
        self.leaks().next().is_none()
    }
}

/// Who may own what, collected from the ledger. Keys are the names owners go by elsewhere: ids, digests of ids, names
/// of containers.
#[derive(Default)]
pub(crate) struct Owners {
    /// Every element, by id and by digest.
    elements: BTreeMap<String, ElementId>,
    /// Containers that may exist, by name.
    containers: BTreeMap<String, ElementId>,
    /// Volumes that may be attached, by digest.
    attached: BTreeMap<String, ElementId>,
    /// Executors with a commit in flight, by the container it makes or changes.
    committing: BTreeMap<ElementId, Intent>,
    /// What belongs to whole locations, by path.
    locations: BTreeMap<String, ElementId>,
}

impl PortLayer {
    /// Compares what is there with the ledger, after containers that have ended are taken down. Costs a listing of
    /// everything.
    pub async fn audit(&self) -> Result<AuditReport, AuditError> {
        self.settle().await;
        let mut findings = self.shared.runtime.audit().await?;
        let mut away = BTreeMap::new();
        for location in self.shared.locations.values() {
            let Some(store) = &location.store else {
                continue;
            };
            let name = &location.name;
            let names = match store.list().await {
                Ok(names) => names,
                Err(StoreError::Unavailable(reason)) => {
                    away.insert(name.clone(), reason);
                    continue;
                }
                Err(source) => {
                    return Err(AuditError::Store {
                        location: name.clone(),
                        source,
                    });
                }
            };
            findings.extend(names.into_iter().map(|digest| Finding {
                class: FindingClass::VolumeData,
                name: format!("{name}/{digest}"),
                owner: Some(digest),
            }));
        }
        let layer = self.clone();
        let owners = tokio::task::spawn_blocking(move || layer.owners())
            .await
            .map_err(|_| LedgerError::Closed)??;
        findings.sort();
        let found = findings
            .into_iter()
            .map(|finding| Audited {
                owner: owners.owner_of(&finding).cloned(),
                finding,
            })
            .collect();
        Ok(AuditReport { found, away })
    }

    /// What belongs to whole locations, with the id that stands for the location.
    fn own_places(&self) -> BTreeMap<String, ElementId> {
        let mut places = BTreeMap::new();
        for location in self.shared.locations.values() {
            let (Some(store), Some(id)) = (&location.store, health::stand_in(location)) else {
                continue;
            };
            let own = store.own_places().into_iter();
            places.extend(own.map(|path| (path.to_string_lossy().into_owned(), id.clone())));
        }
        places
    }

    pub(crate) fn owners(&self) -> Result<Owners, LedgerError> {
        let mut owners = Owners {
            locations: self.own_places(),
            ..Owners::default()
        };
        for (executor, intent) in self.shared.ledger.intents::<Intent>()? {
            // One that cannot be read names no container, so it owns none.
            if let Ok(intent) = intent {
                owners.committing.insert(executor, intent);
            }
        }
        let mut after: Option<String> = None;
        loop {
            let page = self
                .shared
                .ledger
                .list("", after.as_deref(), PAGE, |_| true)?;
            page.records.iter().for_each(|record| owners.add(record));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(owners),
            }
        }
    }
}

impl Owners {
    fn add(&mut self, record: &Record) {
        let id = &record.id;
        self.elements.insert(id.as_str().to_owned(), id.clone());
        self.elements.insert(id.digest_hex(), id.clone());
        let Body::Executor(body) = &record.body else {
            return;
        };
        let volumes = |id: &&ElementId| id.kind() == Kind::Volume;
        if matches!(record.state, State::Running | State::Paused) {
            self.add_container(id, body.composition.generation);
            for volume in body.composition.joined.keys().filter(volumes) {
                self.attached.insert(volume.digest_hex(), volume.clone());
            }
        }
        // Generations are skipped where something of a container was left behind, so only the intent knows the name.
        if let Some(intent) = self.committing.get(id) {
            let generation = intent.generation;
            let attaches = intent.attaches.iter();
            let attached = attaches.map(|(volume, _)| (volume.digest_hex(), volume.clone()));
            self.attached.extend(attached);
            self.add_container(id, generation);
        }
    }

    fn add_container(&mut self, executor: &ElementId, generation: u32) {
        let name = ContainerId::new(executor, generation);
        self.containers
            .insert(name.as_str().to_owned(), executor.clone());
    }

    pub(crate) fn owner_of(&self, finding: &Finding) -> Option<&ElementId> {
        let owner = finding.owner.as_deref();
        let container = || self.containers.get(owner.unwrap_or(&finding.name));
        match finding.class {
            FindingClass::Process
            | FindingClass::Shim
            | FindingClass::Cgroup
            | FindingClass::RuncState
            | FindingClass::Fifo
            | FindingClass::Directory => container(),
            // Its label names the executor, but only the name says which start of it.
            FindingClass::Container => self.containers.get(&finding.name),
            FindingClass::Snapshot => self
                .containers
                .get(&finding.name)
                .or_else(container)
                .or_else(|| self.element(owner)),
            FindingClass::Content | FindingClass::VolumeData | FindingClass::Log => {
                self.element(owner)
            }
            FindingClass::Mount if self.locations.contains_key(&finding.name) => {
                self.locations.get(&finding.name)
            }
            FindingClass::Mount => container().or_else(|| self.attached.get(owner?)),
            FindingClass::LoopDevice => {
                let file = Path::new(owner?).file_stem()?.to_str()?;
                self.locations
                    .get(owner?)
                    .or_else(|| self.attached.get(file))
                    .or_else(|| self.containers.get(file))
            }
            FindingClass::Lease => container().filter(|executor| {
                let intent = self.committing.get(*executor);
                intent.is_some_and(|intent| intent.rest.is_none())
            }),
            // Of a bridge and the table itself the owner is a network, of everything else a container.
            FindingClass::Interface | FindingClass::Firewall => {
                container().or_else(|| self.element(owner))
            }
            FindingClass::NetworkNamespace => container(),
            FindingClass::Ingest | FindingClass::Descriptor => None,
        }
    }

    fn element(&self, owner: Option<&str>) -> Option<&ElementId> {
        self.elements.get(owner?)
    }
}
