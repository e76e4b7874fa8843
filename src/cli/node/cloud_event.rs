//! Events in the JSON form of CloudEvents 1.0 (<https://github.com/cloudevents/spec>, formats/json-format.md).

use std::path::Path;

use portlayer::event::{Change, Event};
use serde::Serialize;

/// What every type begins with.
const TYPE: &str = "io.portlayer.";

/// One event. `source` and `id` together are unique: the node, and the place in its order.
#[derive(Debug, Serialize)]
pub(super) struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    /// The element; a gap has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    datacontenttype: &'static str,
    /// The extension "sequence": as text in the order of the events.
    sequence: String,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    sequence: u64,
    revision: u64,
    reconciled: bool,
    change: &'a Change,
}

impl<'a> CloudEvent<'a> {
    /// An event of a node.
    pub(super) fn new(event: &'a Event, source: &'a str) -> Self {
        let (id, subject) = match event.change {
            Change::Gap { from, to } => (format!("gap-{from}-{to}"), None),
            _ => (event.sequence.to_string(), Some(event.id.as_str())),
        };
        Self {
            specversion: "1.0",
            id,
            source,
            kind: format!("{TYPE}{}", event.change.as_str()),
            subject,
            time: event.time.to_string(),
            datacontenttype: "application/json",
            sequence: format!("{:020}", event.sequence),
            data: Data {
                sequence: event.sequence,
                revision: event.revision,
                reconciled: event.reconciled,
                change: &event.change,
            },
        }
    }
}

/// The source of a node's events: its host and data directory, as a URI.
pub(super) fn source(host: &str, data_dir: &Path) -> String {
    let mut uri = format!("portlayer://{host}");
    for byte in data_dir.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer::time::Timestamp;

    #[test]
    fn an_event_has_the_attributes_the_specification_requires() {
        let source = source("host-1", Path::new("/var/lib/port layer"));
        assert_eq!(source, "portlayer://host-1/var/lib/port%20layer");
        let event = Event {
            sequence: 7,
            time: Timestamp::from_nanos(0),
            id: "image://images/x".parse().unwrap(),
            revision: 2,
            reconciled: false,
            change: Change::Modified {
                keys: vec!["team".to_owned()],
            },
        };
        let json = serde_json::to_value(CloudEvent::new(&event, &source)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "specversion": "1.0",
                "id": "7",
                "source": source,
                "type": "io.portlayer.modified",
                "subject": "image://images/x",
                "time": "1970-01-01T00:00:00.000000000Z",
                "datacontenttype": "application/json",
                "sequence": "00000000000000000007",
                "data": {
                    "sequence": 7,
                    "revision": 2,
                    "reconciled": false,
                    "change": {"modified": {"keys": ["team"]}},
                },
            })
        );
    }

    #[test]
    fn a_gap_is_an_event_without_subject() {
        let gap = Event::gap(3, 9);
        let json = serde_json::to_value(CloudEvent::new(&gap, "portlayer://h/d")).unwrap();
        assert_eq!(json["type"], "io.portlayer.gap");
        assert_eq!(json["id"], "gap-3-9");
        assert_eq!(json.get("subject"), None);
        assert_eq!(json["data"]["change"]["gap"]["from"], 3);
    }
}
