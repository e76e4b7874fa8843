//! Where to look for what a filter can select, so that a list by id, parent or use does not read every record.

use super::{Compiled, Condition, ElementField, ElementFilter};
use crate::element::{ElementId, Kind};

/// A set of records that holds everything one alternative of a filter can select.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scan {
    /// This one.
    One(ElementId),
    /// The children of this one.
    Children(ElementId),
    /// The executors that use this one.
    UsersOf(ElementId),
    /// What this executor uses.
    UsedBy(ElementId),
    /// Ids with this beginning; empty = all.
    Prefix(String),
}

/// The scans that together hold everything the filter can select, sorted and without repeats.
pub(crate) fn plan(filter: &ElementFilter) -> Vec<Scan> {
    let mut scans: Vec<Scan> = match filter.alternatives() {
        [] => vec![Scan::Prefix(String::new())],
        alternatives => alternatives.iter().flat_map(|all| narrowest(all)).collect(),
    };
    scans.sort();
    scans.dedup();
    let prefixes: Vec<String> = scans
        .iter()
        .filter_map(|scan| match scan {
            Scan::Prefix(prefix) => Some(prefix.clone()),
            _ => None,
        })
        .collect();
    // A prefix within another, and an id within a prefix, are read already.
    scans.retain(|scan| match scan {
        Scan::Prefix(text) => !prefixes
            .iter()
            .any(|prefix| prefix != text && text.starts_with(prefix.as_str())),
        Scan::One(id) => !prefixes
            .iter()
            .any(|prefix| id.as_str().starts_with(prefix.as_str())),
        _ => true,
    });
    scans
}

fn narrowest(all: &[Condition<ElementField>]) -> Vec<Scan> {
    let equal = |wanted: &ElementField| {
        all.iter().find_map(|condition| match &condition.test {
            Compiled::Equal(value) if condition.field == *wanted => std::str::from_utf8(value).ok(),
            _ => None,
        })
    };
    let id = |wanted: &ElementField| equal(wanted).map(str::parse::<ElementId>);
    match id(&ElementField::Id) {
        Some(Ok(id)) => return vec![Scan::One(id)],
        // No element has such an id.
        Some(Err(_)) => return Vec::new(),
        None => {}
    }
    match id(&ElementField::Parent) {
        Some(Ok(parent)) => return vec![Scan::Children(parent)],
        Some(Err(_)) => return Vec::new(),
        None => {}
    }
    match id(&ElementField::Uses) {
        Some(Ok(id)) if id.kind() == Kind::Executor => return vec![Scan::UsedBy(id)],
        Some(Ok(id)) => return vec![Scan::UsersOf(id)],
        Some(Err(_)) => return Vec::new(),
        None => {}
    }
    match id(&ElementField::UsedBy) {
        Some(Ok(id)) => return vec![Scan::UsedBy(id)],
        Some(Err(_)) => return Vec::new(),
        None => {}
    }
    let id_prefix = all.iter().find_map(|condition| match &condition.test {
        Compiled::Matches(regex) if condition.field == ElementField::Id => {
            literal_prefix(regex.as_str())
        }
        _ => None,
    });
    if let Some(prefix) = id_prefix {
        return vec![Scan::Prefix(prefix)];
    }
    match (equal(&ElementField::Kind), equal(&ElementField::Location)) {
        (Some(kind), location) => match Kind::from_name(kind) {
            Some(kind) => vec![Scan::Prefix(prefix(kind, location))],
            None => Vec::new(),
        },
        (None, Some(location)) => Kind::ALL
            .into_iter()
            .map(|kind| Scan::Prefix(prefix(kind, Some(location))))
            .collect(),
        (None, None) => vec![Scan::Prefix(String::new())],
    }
}

fn prefix(kind: Kind, location: Option<&str>) -> String {
    match location {
        Some(location) => format!("{kind}://{location}/"),
        None => format!("{kind}://"),
    }
}

/// The text every match of the pattern begins with, for patterns of the plain form `^text...`.
fn literal_prefix(pattern: &str) -> Option<String> {
    let rest = pattern.strip_prefix('^')?;
    if rest.contains('|') {
        return None;
    }
    let end = rest
        .find(|c: char| {
            !(c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '_' | '-' | '@' | '~'))
        })
        .unwrap_or(rest.len());
    let mut literal = &rest[..end];
    if rest[end..].starts_with(['*', '?', '{', '+']) {
        literal = &literal[..literal.len().saturating_sub(1)];
    }
    Some(literal.to_owned())
}
