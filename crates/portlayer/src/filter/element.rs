//! The fields of elements.

use std::borrow::Cow;

use super::{ElementFilter, Field};
use crate::element::{Body, ElementId, Record, State};

/// A field of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementField {
    /// The id.
    Id,
    /// `image`, `volume`, ...
    Kind,
    /// The location.
    Location,
    /// The name within the location.
    Name,
    /// The parent's id.
    Parent,
    /// The parent, its parent, and so on.
    Ancestor,
    /// The element a task is stored with.
    Owner,
    /// The state as of now.
    State,
    /// `sha256:...`.
    Checksum,
    /// `true` or `false`.
    Hidden,
    /// Revision, a number.
    Revision,
    /// Size in bytes, a number.
    Size,
    /// Time of creation, RFC 3339.
    Created,
    /// Time of the last change, RFC 3339.
    Modified,
    /// The other side of a use: for an executor what it uses, for anything else the executors that use it.
    Uses,
    /// The executors that use it.
    UsedBy,
    /// A key of the immutable metadata.
    Ro(String),
    /// A key of the mutable metadata.
    Rw(String),
    /// A key of either.
    Label(String),
}

impl Field for ElementField {
    fn resolve(path: &[String]) -> Result<Self, String> {
        let (name, key) = path.split_first().ok_or("expected a field")?;
        if !key.is_empty() {
            // containerd joins the parts of a label's path, so labels.a.b is the key "a.b".
            let key = key.join(".");
            return match name.as_str() {
                "ro" => Ok(ElementField::Ro(key)),
                "rw" => Ok(ElementField::Rw(key)),
                "labels" => Ok(ElementField::Label(key)),
                _ => Err(format!("unknown field {:?}", path.join("."))),
            };
        }
        Ok(match name.as_str() {
            "id" => ElementField::Id,
            "kind" => ElementField::Kind,
            "location" => ElementField::Location,
            "name" => ElementField::Name,
            "parent" => ElementField::Parent,
            "ancestor" => ElementField::Ancestor,
            "owner" => ElementField::Owner,
            "state" => ElementField::State,
            "checksum" => ElementField::Checksum,
            "hidden" => ElementField::Hidden,
            "revision" => ElementField::Revision,
            "size" => ElementField::Size,
            "created" => ElementField::Created,
            "modified" => ElementField::Modified,
            "uses" => ElementField::Uses,
            "usedby" => ElementField::UsedBy,
            "ro" | "rw" | "labels" => return Err(format!("{name} needs a key: {name}.\"key\"")),
            _ => return Err(format!("unknown field {name:?}")),
        })
    }
}

/// What a filter asks about other elements; asked only when a filter needs it.
pub trait Relations {
    /// The parent of an element, `None` also when it is gone.
    fn parent(&self, id: &ElementId) -> Option<ElementId>;
    /// The executors that use an element.
    fn users(&self, id: &ElementId) -> Vec<ElementId>;
}

/// An element as a filter sees it.
pub struct ElementView<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Its state as of now.
    pub state: State,
}

impl ElementFilter {
    /// Whether the element is selected.
    pub fn selects_element(&self, element: &ElementView<'_>, relations: &impl Relations) -> bool {
        self.selects(|field| values(field, element, relations))
    }
}

/// The deepest chain of parents that is followed; longer ones cannot be made by people.
const MAX_ANCESTORS: usize = 4096;

fn values<'a>(
    field: &ElementField,
    element: &ElementView<'a>,
    relations: &impl Relations,
) -> Vec<Cow<'a, [u8]>> {
    let record = element.record;
    let text = |text: String| vec![Cow::Owned(text.into_bytes())];
    let borrowed = |text: &'a str| vec![Cow::Borrowed(text.as_bytes())];
    let id = |id: &'a Option<ElementId>| {
        id.iter()
            .map(|id| Cow::Borrowed(id.as_str().as_bytes()))
            .collect()
    };
    let owned = |ids: Vec<ElementId>| {
        ids.iter()
            .map(|id| Cow::Owned(id.as_str().as_bytes().to_vec()))
            .collect::<Vec<_>>()
    };
    let key = |map: &'a crate::element::Metadata, key: &str| {
        map.get(key).map(|value| Cow::Borrowed(value.as_slice()))
    };
    match field {
        ElementField::Id => borrowed(record.id.as_str()),
        ElementField::Kind => borrowed(record.id.kind().as_str()),
        ElementField::Location => borrowed(record.id.location()),
        ElementField::Name => borrowed(record.id.name()),
        ElementField::Parent => id(&record.parent),
        ElementField::Owner => id(&record.owner),
        ElementField::Ancestor => owned(ancestors(record, relations)),
        ElementField::State => borrowed(element.state.as_str()),
        ElementField::Checksum => record
            .checksum
            .map(|sum| Cow::Owned(sum.to_string().into_bytes()))
            .into_iter()
            .collect(),
        ElementField::Hidden => text(record.hidden.to_string()),
        ElementField::Revision => text(record.revision.to_string()),
        ElementField::Size => text(record.size.to_string()),
        ElementField::Created => text(record.created.to_string()),
        ElementField::Modified => text(record.modified.to_string()),
        ElementField::Uses => match &record.body {
            Body::Executor(executor) => {
                owned(executor.composition.joined.keys().cloned().collect())
            }
            _ => owned(relations.users(&record.id)),
        },
        ElementField::UsedBy => owned(relations.users(&record.id)),
        ElementField::Ro(name) => key(&record.ro, name).into_iter().collect(),
        ElementField::Rw(name) => key(&record.rw, name).into_iter().collect(),
        ElementField::Label(name) => key(&record.ro, name)
            .into_iter()
            .chain(key(&record.rw, name))
            .collect(),
    }
}

fn ancestors(record: &Record, relations: &impl Relations) -> Vec<ElementId> {
    let mut chain = Vec::new();
    let mut next = record.parent.clone();
    while let Some(id) = next {
        if chain.len() == MAX_ANCESTORS {
            break;
        }
        next = relations.parent(&id);
        chain.push(id);
    }
    chain
}
