//! Events and rows of the audit log.

use portlayer::event::{Change, Event};
use portlayer::ledger::{AuditRow, Outcome};
use serde::Serialize;

use crate::cli::exit_code;
use crate::cli::output::{Column, Row};

/// An event; `transparent`, so that JSON is the event itself.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct EventRow<'a>(pub(crate) &'a Event);

impl EventRow<'_> {
    /// The event on one line for people.
    pub(crate) fn line(&self) -> String {
        let event = self.0;
        let details = match &event.change {
            Change::Created | Change::Deleted => String::new(),
            Change::Modified { keys } => keys.join(","),
            Change::Inherited { child } => format!("child={child}"),
            Change::Joined { executor }
            | Change::Left { executor }
            | Change::Bound { executor } => {
                format!("executor={executor}")
            }
            Change::Unbound {
                executor,
                exit: None,
            } => format!("executor={executor}"),
            Change::Unbound {
                executor,
                exit: Some(exit),
            } => format!("executor={executor} {}", exit_code::describe(exit)),
            Change::LocationHealth {
                location,
                available,
                reason,
            } => format!(
                "location={location} {}{}",
                if *available {
                    "available"
                } else {
                    "unavailable: "
                },
                if *available { "" } else { reason }
            ),
            Change::Gap { from, to } => {
                let text = "are not here: read the elements again";
                format!("-- events {from} to {to} {text}")
            }
        };
        // A gap is about no element.
        let id = match event.change {
            Change::Gap { .. } => "",
            _ => event.id.as_str(),
        };
        let reconciled = if event.reconciled {
            " (reconciled)"
        } else {
            ""
        };
        format!(
            "{} {:>6} {:<9} {} {details}{reconciled}",
            event.time,
            event.sequence,
            event.change.as_str(),
            id
        )
        .trim_end()
        .to_owned()
    }
}

/// A row of the audit log.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct AuditLine(pub(crate) AuditRow);

impl Row for AuditLine {
    const COLUMNS: &'static [Column] = &[
        Column::new("ROW").right(),
        Column::new("TIME"),
        Column::new("ACTOR"),
        Column::new("VERB"),
        Column::new("OUTCOME"),
        Column::new("REVISION"),
        Column::new("KEYS").cut(),
        Column::new("OPERATION").wide(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let row = &self.0;
        vec![
            row.sequence.to_string().into(),
            row.time.to_string().into(),
            row.actor.clone().into(),
            row.verb.as_str().into(),
            match &row.outcome {
                Outcome::Ok => "ok".into(),
                Outcome::Failed(code) => code.clone().into(),
            },
            format!("{} -> {}", row.revision_before, row.revision_after).into(),
            row.keys.join(",").into(),
            row.operation.clone().into(),
        ]
    }

    fn name(&self) -> String {
        self.0.sequence.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer::time::Timestamp;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            sequence: 7,
            time: Timestamp::from_nanos(0),
            id: "volume://volumes/v".parse().unwrap(),
            revision: 1,
            reconciled: true,
            change: Change::Joined {
                executor: "executor://executors/x".parse().unwrap(),
            },
        };
        assert_eq!(
            EventRow(&event).line(),
            "1970-01-01T00:00:00.000000000Z      7 joined    volume://volumes/v \
             executor=executor://executors/x (reconciled)"
        );
        let gap = EventRow(&Event::gap(3, 9)).line();
        let (_, gap) = gap.split_once("Z ").unwrap();
        let text = "-- events 3 to 9 are not here: read the elements again";
        assert_eq!(gap, format!("     9 gap        {text}"));
    }
}
