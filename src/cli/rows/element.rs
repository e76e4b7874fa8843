//! An element as a row.

use portlayer::element::{Body, Descriptor, ElementId, LogBody, Metadata, NetworkBody};
use portlayer::time::Timestamp;
use serde::Serialize;

use super::{age, bytes};
use crate::cli::output::{Column, Row};

/// An element in a list.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct ElementRow {
    pub(crate) element: Descriptor,
    #[serde(skip)]
    pub(crate) now: Timestamp,
}

impl ElementRow {
    /// Rows of these elements, their age as of now.
    pub(crate) fn of(elements: Vec<Descriptor>) -> Vec<Self> {
        let now = Timestamp::now();
        elements
            .into_iter()
            .map(|element| Self { element, now })
            .collect()
    }
}

impl Row for ElementRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("STATE"),
        Column::new("SIZE").right(),
        Column::new("AGE").right(),
        Column::new("PARENT").wide(),
        Column::new("CHECKSUM").wide(),
        Column::new("REVISION").wide().right(),
        Column::new("CREATED").wide(),
        Column::new("RO").wide(),
        Column::new("METADATA").cut(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let element = &self.element;
        vec![
            element.id.as_str().into(),
            element.state.as_str().into(),
            bytes(element.size).into(),
            age(element.created, self.now).into(),
            element.parent.as_ref().map_or("", ElementId::as_str).into(),
            element
                .checksum
                .map(|sum| sum.to_string())
                .unwrap_or_default()
                .into(),
            element.revision.to_string().into(),
            element.created.to_string().into(),
            metadata(&element.ro),
            match &element.body {
                // What they are is in their settings.
                Body::Network(NetworkBody { settings }) | Body::Log(LogBody { settings }) => {
                    let pairs = settings.iter().map(|(key, value)| format!("{key}={value}"));
                    pairs.collect::<Vec<_>>().join(" ").into_bytes()
                }
                _ => metadata(&element.rw),
            },
        ]
    }

    fn name(&self) -> String {
        self.element.id.to_string()
    }
}

/// Metadata as `key=value` pairs.
fn metadata(map: &Metadata) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in map {
        if !text.is_empty() {
            text.push(b' ');
        }
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Out, OutputArgs};
    use crate::cli::rows::tests::task;

    #[test]
    fn an_element_is_a_row_with_inert_metadata() {
        let row = ElementRow {
            element: task(),
            now: Timestamp::from_nanos(7_200_000_000_000),
        };
        let text = Out::new(OutputArgs::default(), false)
            .draw_list(&[row])
            .unwrap();
        assert_eq!(
            text,
            "ID              STATE  SIZE  AGE  METADATA\n\
             task://tasks/t  ready     -   2h  evil=\\xff\\x1b[2J\n"
        );
    }
}
