//! Events and gaps.

use portlayer::event::{Change, Event, Sequence};
use portlayer_proto::v1;

use super::{Wire, WireError, id, missing, optional, read_time, time};

impl Wire for Event {
    /// A gap has a message of its own: see `gap`.
    type Message = v1::Event;

    fn into_wire(self) -> v1::Event {
        use v1::event::Change as C;
        let Event {
            sequence,
            time: at,
            id,
            revision,
            reconciled,
            change,
        } = self;
        let change = match change {
            Change::Created => Some(C::Created(v1::Created {})),
            Change::Modified { keys } => Some(C::Modified(v1::Modified { keys })),
            Change::Deleted => Some(C::Deleted(v1::Deleted {})),
            Change::Inherited { child } => Some(C::Inherited(v1::Inherited {
                child: child.to_string(),
            })),
            Change::Joined { executor } => Some(C::Joined(v1::JoinedExecutor {
                executor: executor.to_string(),
            })),
            Change::Left { executor } => Some(C::Left(v1::LeftExecutor {
                executor: executor.to_string(),
            })),
            Change::Bound { executor } => Some(C::Bound(v1::Bound {
                executor: executor.to_string(),
            })),
            Change::Unbound { executor, exit } => Some(C::Unbound(v1::Unbound {
                executor: executor.to_string(),
                exit: exit.map(|exit| exit.into_wire()),
            })),
            Change::LocationHealth {
                location,
                available,
                reason,
            } => Some(C::LocationHealth(v1::LocationHealth {
                location,
                available,
                reason,
            })),
            Change::Gap { .. } => None,
        };
        v1::Event {
            sequence,
            time: Some(time(at)),
            id: id.to_string(),
            revision,
            reconciled,
            change,
        }
    }

    fn from_wire(message: v1::Event) -> Result<Self, WireError> {
        use v1::event::Change as C;
        let change = match message.change.ok_or_else(|| missing("change"))? {
            C::Created(_) => Change::Created,
            C::Modified(v1::Modified { keys }) => Change::Modified { keys },
            C::Deleted(_) => Change::Deleted,
            C::Inherited(change) => Change::Inherited {
                child: id("inherited.child", &change.child)?,
            },
            C::Joined(change) => Change::Joined {
                executor: id("joined.executor", &change.executor)?,
            },
            C::Left(change) => Change::Left {
                executor: id("left.executor", &change.executor)?,
            },
            C::Bound(change) => Change::Bound {
                executor: id("bound.executor", &change.executor)?,
            },
            C::Unbound(change) => Change::Unbound {
                executor: id("unbound.executor", &change.executor)?,
                exit: optional("unbound.exit", change.exit)?.map(Box::new),
            },
            C::LocationHealth(change) => Change::LocationHealth {
                location: change.location,
                available: change.available,
                reason: change.reason,
            },
        };
        Ok(Event {
            sequence: message.sequence,
            time: read_time("time", message.time)?,
            id: id("id", &message.id)?,
            revision: message.revision,
            reconciled: message.reconciled,
            change,
        })
    }
}

/// The gap an event stands for, if it is one.
fn gap(event: &Event) -> Option<v1::Gap> {
    match event.change {
        Change::Gap { from, to } => Some(v1::Gap {
            from,
            to,
            time: Some(time(event.time)),
        }),
        _ => None,
    }
}

/// The event that stands for a gap.
pub fn gap_event(gap: &v1::Gap) -> Result<Event, WireError> {
    Ok(Event {
        time: read_time("time", gap.time)?,
        ..Event::gap(gap.from, gap.to)
    })
}

/// Events with the gaps between them, as messages in order.
pub fn parts(events: impl IntoIterator<Item = Event>) -> Vec<v1::SubscribeResponse> {
    use v1::subscribe_response::Part;
    let mut parts = Vec::new();
    let mut batch = Vec::new();
    let part = |part| v1::SubscribeResponse { part: Some(part) };
    for event in events {
        match gap(&event) {
            None => batch.push(event.into_wire()),
            Some(gap) => {
                if !batch.is_empty() {
                    let events = std::mem::take(&mut batch);
                    parts.push(part(Part::Events(v1::EventBatch { events })));
                }
                parts.push(part(Part::Gap(gap)));
            }
        }
    }
    if !batch.is_empty() {
        parts.push(part(Part::Events(v1::EventBatch { events: batch })));
    }
    parts
}

/// What a fetch answers.
pub fn fetched(events: Vec<Event>, last_sequence: Sequence) -> v1::FetchResponse {
    let mut response = v1::FetchResponse {
        last_sequence,
        ..v1::FetchResponse::default()
    };
    for event in events {
        match gap(&event) {
            Some(gap) => response.gaps.push(gap),
            None => response.events.push(event.into_wire()),
        }
    }
    response
}

/// The events of a fetch, gaps in their places.
pub fn read_fetched(message: v1::FetchResponse) -> Result<Vec<Event>, WireError> {
    let mut events: Vec<Event> = super::all("events", message.events)?;
    for gap in &message.gaps {
        events.push(gap_event(gap)?);
    }
    events.sort_by_key(|event| event.sequence);
    Ok(events)
}
