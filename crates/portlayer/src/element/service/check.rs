//! What Create checks before it touches anything.

use std::collections::BTreeMap;

use super::fields::{self, FieldError};
use super::{Verb, builtin};
use crate::PortLayer;
use crate::element::{
    ElementId, Kind, Metadata, NewElement, Patch, Record, Spec, metadata as maps,
};
use crate::error::{CreateError, LocationError};
use crate::ledger::LedgerError;
use crate::log::LogSpec;
use crate::network::NetworkSpec;
use crate::store::{Location, Policy};

impl PortLayer {
    pub(super) fn check_location(&self, new: &NewElement) -> Result<&Location, CreateError> {
        let location = self.usable_location(&new.id, Verb::Create)?;
        let of_node = matches!(new.id.kind(), Kind::Network | Kind::Log);
        if of_node && location.name != builtin::NODE {
            return Err(LocationError::Policy {
                id: new.id.clone(),
                location: location.name.clone(),
                policy: Policy::ReadOnly,
                verb: Verb::Create.as_str(),
            }
            .into());
        }
        if new.spec.kind() != new.id.kind() {
            return Err(CreateError::SpecKind {
                id: new.id.clone(),
                spec: new.spec.kind(),
            });
        }
        Ok(location)
    }

    /// Whether an element of this id could be made now: its location takes it and the id is free. Create looks again; this
    /// is for callers to whom the data cost something. Errors: `Location`, `AlreadyExists`, `Ledger`.
    pub fn can_create(&self, id: &ElementId) -> Result<(), CreateError> {
        self.usable_location(id, Verb::Create)?;
        self.check_free(id)
    }

    /// The node's owner allows where a new log goes.
    fn check_log(
        &self,
        id: &ElementId,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), CreateError> {
        let Ok(wanted) = LogSpec::of_settings(settings) else {
            return Ok(());
        };
        let allowed = self.shared.runtime.allows_log(&wanted);
        allowed.map_err(|rule| CreateError::InvalidField {
            id: id.clone(),
            field: "kind".to_owned(),
            rule,
        })
    }

    /// The addresses of a new network are no other network's, and a new log goes where it may.
    pub(super) fn check_beyond(&self, new: &NewElement) -> Result<(), CreateError> {
        let settings = match &new.spec {
            Spec::Network(settings) => settings,
            Spec::Log(settings) => return self.check_log(&new.id, settings),
            _ => return Ok(()),
        };
        let Ok(wanted) = NetworkSpec::of_settings(new.id.name(), settings) else {
            return Ok(());
        };
        let ledger = |source| CreateError::Ledger {
            id: new.id.clone(),
            source,
        };
        let known = self
            .shared
            .ledger
            .list("network://node/", None, usize::MAX, |_| true);
        for record in known.map_err(ledger)?.records {
            let there = self.shared.composer.node.network(&record);
            if let Some(field) = there.and_then(|there| wanted.overlap(&there)) {
                return Err(CreateError::InvalidField {
                    id: new.id.clone(),
                    field: field.to_owned(),
                    rule: format!("overlaps with that of {}", record.id),
                });
            }
        }
        Ok(())
    }

    pub(super) fn check_parent(
        &self,
        id: &ElementId,
        parent: Option<&ElementId>,
        location: &Location,
        data: bool,
    ) -> Result<Option<Record>, CreateError> {
        let Some(parent) = parent else {
            return Ok(None);
        };
        let invalid = |reason| CreateError::InvalidParent {
            id: id.clone(),
            parent: parent.clone(),
            reason,
        };
        match (id.kind(), parent.kind()) {
            (Kind::Image, Kind::Image)
            | (Kind::Volume, Kind::Image | Kind::Volume)
            | (Kind::Task, Kind::Task) => {}
            (Kind::Image, _) => return Err(invalid("the parent of an image is an image")),
            (Kind::Volume, _) => {
                return Err(invalid("the parent of a volume is an image or a volume"));
            }
            (Kind::Task, _) => return Err(invalid("the parent of a task is a task")),
            _ => return Err(invalid("elements of this kind have no parent")),
        }
        if parent == id {
            return Err(invalid("an element is not its own parent"));
        }
        let unknown = || CreateError::UnknownParent {
            id: id.clone(),
            parent: parent.clone(),
        };
        match self.location(parent) {
            Ok(location) => self.shared.health.check(&location.name)?,
            Err(_) => return Err(unknown()),
        }
        let record = match self.shared.ledger.get(parent) {
            Ok(record) => record.ok_or_else(unknown)?,
            Err(LedgerError::Damaged { .. }) => {
                return Err(invalid("its record is damaged"));
            }
            Err(source) => {
                return Err(CreateError::Ledger {
                    id: id.clone(),
                    source,
                });
            }
        };
        if let Some(store) = &location.store {
            let can = store.capabilities();
            let able = match parent.kind() {
                _ if builtin::is_scratch(parent) => true,
                Kind::Image => can.parent_image,
                _ => can.parent_volume,
            };
            if !able {
                return Err(invalid("the location does not support such a parent"));
            }
        }
        if id.kind() == Kind::Volume && data && !builtin::is_scratch(parent) {
            return Err(invalid(
                "a volume is made from a parent or from data, not both",
            ));
        }
        Ok(Some(record))
    }

    pub(super) fn check_owner(
        &self,
        id: &ElementId,
        owner: Option<&ElementId>,
    ) -> Result<(), CreateError> {
        let Some(owner) = owner else {
            return Ok(());
        };
        let invalid = |reason| CreateError::InvalidOwner {
            id: id.clone(),
            owner: owner.clone(),
            reason,
        };
        if id.kind() != Kind::Task {
            return Err(invalid("only tasks are stored with another element"));
        }
        if !matches!(owner.kind(), Kind::Image | Kind::Volume) {
            return Err(invalid("a task is stored with an image or a volume"));
        }
        if builtin::is_built_in(owner) {
            return Err(invalid("it is built in"));
        }
        match self.shared.ledger.get(owner) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(CreateError::UnknownOwner {
                id: id.clone(),
                owner: owner.clone(),
            }),
            Err(LedgerError::Damaged { .. }) => Err(invalid("its record is damaged")),
            Err(source) => Err(CreateError::Ledger {
                id: id.clone(),
                source,
            }),
        }
    }

    pub(super) fn check_free(&self, id: &ElementId) -> Result<(), CreateError> {
        match self.shared.ledger.get(id) {
            Ok(None) => Ok(()),
            Ok(Some(record)) => Err(CreateError::AlreadyExists {
                id: id.clone(),
                checksum: record.checksum,
            }),
            // Damaged, but there: the name is taken until someone deletes it.
            Err(LedgerError::Damaged { .. }) => Err(CreateError::AlreadyExists {
                id: id.clone(),
                checksum: None,
            }),
            Err(source) => Err(CreateError::Ledger {
                id: id.clone(),
                source,
            }),
        }
    }
}

/// The fields of the spec, and that data and checksum come where they may.
pub(super) fn fields(new: &NewElement) -> Result<(), CreateError> {
    let refused = |error: FieldError| error.of(&new.id);
    fields::check(&new.id, &new.spec).map_err(refused)?;
    let refuse = |field: &str, rule: &str| {
        Err(CreateError::InvalidField {
            id: new.id.clone(),
            field: field.to_owned(),
            rule: rule.to_owned(),
        })
    };
    if new.data.is_some() && new.id.kind() == Kind::Executor {
        return refuse("data", "an executor has no data");
    }
    if new.data.is_some() && matches!(new.id.kind(), Kind::Network | Kind::Log) {
        return refuse("data", "networks and logs have no data");
    }
    if new.checksum.is_some() && new.data.is_none() {
        return refuse("checksum", "a checksum needs data");
    }
    let from_scratch = new.parent.as_ref().is_none_or(builtin::is_scratch);
    if new.id.kind() == Kind::Image && new.data.is_none() && from_scratch {
        return refuse("data", "an image needs data or a parent with content");
    }
    Ok(())
}

/// Both maps, and that no key is in both.
pub(super) fn metadata(
    id: &ElementId,
    ro: Patch,
    rw: Patch,
) -> Result<(Metadata, Metadata), CreateError> {
    let invalid = |entry| CreateError::InvalidEntry {
        id: id.clone(),
        entry,
    };
    let ro = maps::checked(ro).map_err(invalid)?;
    let rw = maps::checked(rw).map_err(invalid)?;
    match rw.keys().find(|key| ro.contains_key(*key)) {
        Some(key) => Err(CreateError::ReadOnlyKey {
            id: id.clone(),
            key: key.clone(),
        }),
        None => Ok((ro, rw)),
    }
}
