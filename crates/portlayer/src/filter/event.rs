//! The fields of events.

use super::{EventFilter, Field};
use crate::element::Kind;
use crate::event::{Change, Event};

/// A field of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventField {
    /// The element's id.
    Id,
    /// The element's kind.
    Kind,
    /// The element's location.
    Location,
    /// The element's name.
    Name,
    /// What changed (`change`, or containerd's word `topic`): `created`, ..., for tasks and executors also `started`
    /// and `stopped`.
    Change,
    /// The executor the change happened in.
    Executor,
    /// The sequence, a number.
    Sequence,
    /// The element's revision, a number.
    Revision,
    /// `true` or `false`.
    Reconciled,
    /// The child of an `inherited`.
    Child,
    /// Why a task ended.
    Reason,
}

impl Field for EventField {
    fn resolve(path: &[String]) -> Result<Self, String> {
        let [name] = path else {
            return Err(format!("unknown field {:?}", path.join(".")));
        };
        Ok(match name.as_str() {
            "id" => EventField::Id,
            "kind" => EventField::Kind,
            "location" => EventField::Location,
            "name" => EventField::Name,
            "change" | "topic" => EventField::Change,
            "executor" => EventField::Executor,
            "sequence" => EventField::Sequence,
            "revision" => EventField::Revision,
            "reconciled" => EventField::Reconciled,
            "child" => EventField::Child,
            "reason" => EventField::Reason,
            _ => return Err(format!("unknown field {name:?}")),
        })
    }
}

impl EventFilter {
    /// Whether the event is selected. A gap always is: who asked for some events must know that some are missing.
    pub fn selects_event(&self, event: &Event) -> bool {
        matches!(event.change, Change::Gap { .. }) || self.selects(|field| values(*field, event))
    }
}

fn values(field: EventField, event: &Event) -> Vec<String> {
    match field {
        EventField::Id => vec![event.id.to_string()],
        EventField::Kind => vec![event.id.kind().to_string()],
        EventField::Location => match &event.change {
            Change::LocationHealth { location, .. } => vec![location.clone()],
            _ => vec![event.id.location().to_owned()],
        },
        EventField::Name => vec![event.id.name().to_owned()],
        EventField::Change => {
            let runs = matches!(event.id.kind(), Kind::Task | Kind::Executor);
            let alias = match event.change {
                Change::Bound { .. } if runs => Some("started"),
                Change::Unbound { .. } if runs => Some("stopped"),
                _ => None,
            };
            [Some(event.change.as_str()), alias]
                .into_iter()
                .flatten()
                .map(str::to_owned)
                .collect()
        }
        EventField::Executor => event
            .change
            .executor()
            .map(ToString::to_string)
            .into_iter()
            .collect(),
        EventField::Sequence => vec![event.sequence.to_string()],
        EventField::Revision => vec![event.revision.to_string()],
        EventField::Reconciled => vec![event.reconciled.to_string()],
        EventField::Child => match &event.change {
            Change::Inherited { child } => vec![child.to_string()],
            _ => Vec::new(),
        },
        EventField::Reason => match &event.change {
            Change::Unbound {
                exit: Some(exit), ..
            } => vec![exit.reason.as_str().to_owned()],
            _ => Vec::new(),
        },
    }
}
