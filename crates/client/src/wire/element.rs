//! Elements, what makes them and what lists them.

use std::collections::BTreeSet;

use portlayer::element::{
    Body, DataStream, Descriptor, ElementId, EntryError, EntryRule, ExecutorBody, ImageBody, Keys,
    ListQuery, LogBody, NetworkBody, NewElement, Page, Patch, Projection, Spec, TaskBody, Updated,
    VolumeBody,
};
use portlayer::error::CreateError;
use portlayer::ledger::{AuditRow, Outcome};
use portlayer::store::Progress;
use portlayer_proto::v1;

use super::{
    Wire, WireError, all, all_into, checksum, choice, id, metadata, missing, name_of, named,
    optional_checksum, optional_id, or_default, read_metadata, read_time, required, time,
};

impl Wire for Descriptor {
    type Message = v1::Element;

    fn into_wire(self) -> v1::Element {
        let Descriptor {
            id,
            parent,
            owner,
            checksum,
            size,
            ro,
            rw,
            revision,
            created,
            modified,
            state,
            hidden,
            body,
        } = self;
        v1::Element {
            id: id.to_string(),
            parent: parent.map(|id| id.to_string()),
            owner: owner.map(|id| id.to_string()),
            checksum: checksum.map(|sum| sum.to_string()),
            size,
            ro: metadata(ro),
            rw: metadata(rw),
            revision,
            created: Some(time(created)),
            modified: Some(time(modified)),
            state: state.into_wire().into(),
            hidden,
            body: Some(body.into_wire()),
        }
    }

    fn from_wire(message: v1::Element) -> Result<Self, WireError> {
        Ok(Descriptor {
            id: id("id", &message.id)?,
            parent: optional_id("parent", message.parent.as_deref())?,
            owner: optional_id("owner", message.owner.as_deref())?,
            checksum: optional_checksum("checksum", message.checksum.as_deref())?,
            size: message.size,
            ro: read_metadata(message.ro),
            rw: read_metadata(message.rw),
            revision: message.revision,
            created: read_time("created", message.created)?,
            modified: read_time("modified", message.modified)?,
            state: choice("state", message.state)?,
            hidden: message.hidden,
            body: required("body", message.body)?,
        })
    }
}

/// Takes the values of secrets out of an element that leaves the node.
pub fn hide_secrets(descriptor: &mut Descriptor) {
    let blank = |spec: &mut portlayer::task::TaskSpec| {
        for secret in &mut spec.secrets {
            secret.value.clear();
        }
    };
    match &mut descriptor.body {
        Body::Task(task) => blank(&mut task.spec),
        Body::Executor(executor) => {
            for joined in executor.composition.joined.values_mut() {
                if let portlayer::compose::Role::Task { spec, .. } = &mut joined.role {
                    blank(spec);
                }
            }
        }
        Body::Image(_) | Body::Volume(_) | Body::Network(_) | Body::Log(_) => {}
    }
}

impl Wire for Body {
    type Message = v1::Body;

    fn into_wire(self) -> v1::Body {
        use v1::body::Kind as K;
        let kind = match self {
            Body::Image(body) => {
                let ImageBody {
                    spec,
                    keys,
                    metadata_only,
                    defaults,
                } = *body;
                K::Image(v1::ImageBody {
                    spec: Some(spec.into_wire()),
                    keys,
                    metadata_only,
                    defaults: Some(defaults.into_wire()),
                })
            }
            Body::Volume(body) => {
                let VolumeBody { spec, keys } = *body;
                K::Volume(v1::VolumeBody {
                    spec: Some(spec.into_wire()),
                    keys,
                })
            }
            Body::Task(body) => {
                let TaskBody { spec } = *body;
                K::Task(spec.into_wire())
            }
            Body::Executor(body) => {
                let ExecutorBody { spec, composition } = *body;
                K::Executor(v1::ExecutorBody {
                    spec: Some(spec.into_wire()),
                    composition: Some(composition.into_wire()),
                })
            }
            Body::Network(NetworkBody { settings }) => K::Network(v1::Settings { settings }),
            Body::Log(LogBody { settings }) => K::Log(v1::Settings { settings }),
        };
        v1::Body { kind: Some(kind) }
    }

    fn from_wire(message: v1::Body) -> Result<Self, WireError> {
        use v1::body::Kind as K;
        Ok(match message.kind.ok_or_else(|| missing("kind"))? {
            K::Image(body) => Body::Image(Box::new(ImageBody {
                spec: or_default("image.spec", body.spec)?,
                keys: body.keys,
                metadata_only: body.metadata_only,
                defaults: or_default("image.defaults", body.defaults)?,
            })),
            K::Volume(body) => Body::Volume(Box::new(VolumeBody {
                spec: or_default("volume.spec", body.spec)?,
                keys: body.keys,
            })),
            K::Task(spec) => Body::Task(Box::new(TaskBody {
                spec: required("task", Some(spec))?,
            })),
            K::Executor(body) => Body::Executor(Box::new(ExecutorBody {
                spec: or_default("executor.spec", body.spec)?,
                composition: or_default("executor.composition", body.composition)?,
            })),
            K::Network(settings) => Body::Network(NetworkBody {
                settings: settings.settings,
            }),
            K::Log(settings) => Body::Log(LogBody {
                settings: settings.settings,
            }),
        })
    }
}

/// A new element as a message, and its data. Error: a nil value, which no message can carry and no create accepts.
pub fn new_element(new: NewElement) -> Result<(v1::NewElement, Option<DataStream>), CreateError> {
    let NewElement {
        id,
        parent,
        owner,
        data,
        checksum,
        ro,
        rw,
        hidden,
        spec,
    } = new;
    let message = v1::NewElement {
        parent: parent.map(|id| id.to_string()),
        owner: owner.map(|id| id.to_string()),
        checksum: checksum.map(|sum| sum.to_string()),
        ro: values(&id, ro)?,
        rw: values(&id, rw)?,
        hidden,
        spec: Some(spec.into_wire()),
        id: id.to_string(),
    };
    Ok((message, data))
}

fn values(
    id: &ElementId,
    patch: Patch,
) -> Result<std::collections::BTreeMap<String, bytes::Bytes>, CreateError> {
    let entries = patch.into_iter().map(|(key, value)| match value {
        Some(value) => Ok((key, value.into())),
        None => Err(CreateError::InvalidEntry {
            id: id.clone(),
            entry: EntryError {
                key,
                rule: EntryRule::Nil,
            },
        }),
    });
    entries.collect()
}

/// A new element without its data.
pub fn read_new_element(message: v1::NewElement) -> Result<NewElement, WireError> {
    let some = |map| {
        read_metadata(map)
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect()
    };
    let spec: Spec = required("spec", message.spec)?;
    Ok(NewElement {
        id: id("id", &message.id)?,
        parent: optional_id("parent", message.parent.as_deref())?,
        owner: optional_id("owner", message.owner.as_deref())?,
        data: None,
        checksum: optional_checksum("checksum", message.checksum.as_deref())?,
        ro: some(message.ro),
        rw: some(message.rw),
        hidden: message.hidden,
        spec,
    })
}

/// An update as a message.
pub fn update_request(
    id: &ElementId,
    patch: Patch,
    expected_revision: Option<u64>,
) -> v1::UpdateRequest {
    let mut request = v1::UpdateRequest {
        id: id.to_string(),
        expected_revision,
        ..v1::UpdateRequest::default()
    };
    for (key, value) in patch {
        match value {
            Some(value) => {
                request.set.insert(key, value.into());
            }
            None => request.remove.push(key),
        }
    }
    request
}

/// What an update asks for. Error: a key that is to be set and removed.
pub fn patch(request: &mut v1::UpdateRequest) -> Result<Patch, WireError> {
    let set = read_metadata(std::mem::take(&mut request.set));
    let mut patch: Patch = set
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    for (at, key) in std::mem::take(&mut request.remove).into_iter().enumerate() {
        if patch.insert(key, None).is_some_and(|was| was.is_some()) {
            return Err(WireError::Invalid {
                field: format!("remove[{at}]"),
                rule: "the key is in `set` too",
            });
        }
    }
    Ok(patch)
}

impl Wire for Updated {
    type Message = v1::UpdateResponse;

    fn into_wire(self) -> v1::UpdateResponse {
        let Updated {
            descriptor,
            changed,
        } = self;
        v1::UpdateResponse {
            element: Some(descriptor.into_wire()),
            changed,
        }
    }

    fn from_wire(message: v1::UpdateResponse) -> Result<Self, WireError> {
        Ok(Updated {
            descriptor: required("element", message.element)?,
            changed: message.changed,
        })
    }
}

/// A projection as a message; all metadata = none said.
pub fn projection_message(projection: &Projection) -> Option<v1::Projection> {
    let keys = |keys: &Keys| match keys {
        Keys::All => None,
        Keys::None => Some(v1::Keys::default()),
        Keys::Only(only) => Some(v1::Keys {
            only: only.iter().cloned().collect(),
        }),
    };
    (*projection != Projection::default()).then(|| v1::Projection {
        ro: keys(&projection.ro),
        rw: keys(&projection.rw),
    })
}

/// The projection of a message.
pub fn projection(message: Option<v1::Projection>) -> Projection {
    let keys = |keys: Option<v1::Keys>| match keys {
        None => Keys::All,
        Some(keys) if keys.only.is_empty() => Keys::None,
        Some(keys) => Keys::Only(keys.only.into_iter().collect::<BTreeSet<_>>()),
    };
    let message = message.unwrap_or_default();
    Projection {
        ro: keys(message.ro),
        rw: keys(message.rw),
    }
}

/// A query as a message.
pub fn list_request(query: ListQuery) -> v1::ListRequest {
    let ListQuery {
        filters,
        kind,
        prefix,
        page,
        limit,
        hidden,
        projection,
    } = query;
    v1::ListRequest {
        filters,
        kind: kind.map_or(v1::Kind::Unspecified, Wire::into_wire).into(),
        prefix,
        page_token: page.unwrap_or_default(),
        // More than the most is the most.
        page_size: u32::try_from(limit).unwrap_or(u32::MAX),
        hidden,
        projection: projection_message(&projection),
    }
}

/// The query of a message.
pub fn list_query(message: v1::ListRequest) -> Result<ListQuery, WireError> {
    Ok(ListQuery {
        filters: message.filters,
        kind: match message.kind {
            0 => None,
            kind => Some(choice("kind", kind)?),
        },
        prefix: message.prefix,
        page: Some(message.page_token).filter(|token| !token.is_empty()),
        limit: usize::try_from(message.page_size).unwrap_or(usize::MAX),
        hidden: message.hidden,
        projection: projection(message.projection),
    })
}

impl Wire for Page {
    type Message = v1::ListResponse;

    fn into_wire(self) -> v1::ListResponse {
        let Page {
            items,
            damaged,
            next,
        } = self;
        v1::ListResponse {
            elements: all_into(items),
            damaged,
            next_page_token: next.unwrap_or_default(),
        }
    }

    fn from_wire(message: v1::ListResponse) -> Result<Self, WireError> {
        Ok(Page {
            items: all("elements", message.elements)?,
            damaged: message.damaged,
            next: Some(message.next_page_token).filter(|token| !token.is_empty()),
        })
    }
}

impl Wire for Progress {
    type Message = v1::ImportProgress;

    fn into_wire(self) -> v1::ImportProgress {
        use v1::import_progress::Progress as P;
        v1::ImportProgress {
            progress: Some(match self {
                Progress::Read { bytes } => P::ReadBytes(bytes),
                Progress::Unpacked { layers, of } => P::Unpacked(v1::UnpackedLayers { layers, of }),
                Progress::Pulled { bytes, of } => P::Pulled(v1::PulledBytes { bytes, of }),
            }),
        }
    }

    fn from_wire(message: v1::ImportProgress) -> Result<Self, WireError> {
        use v1::import_progress::Progress as P;
        Ok(match message.progress.ok_or_else(|| missing("progress"))? {
            P::ReadBytes(bytes) => Progress::Read { bytes },
            P::Unpacked(v1::UnpackedLayers { layers, of }) => Progress::Unpacked { layers, of },
            P::Pulled(v1::PulledBytes { bytes, of }) => Progress::Pulled { bytes, of },
        })
    }
}

impl Wire for AuditRow {
    type Message = v1::AuditRow;

    fn into_wire(self) -> v1::AuditRow {
        let AuditRow {
            sequence,
            time: at,
            operation,
            actor,
            verb,
            revision_before,
            revision_after,
            outcome,
            checksum,
            keys,
            previous,
            first,
        } = self;
        v1::AuditRow {
            sequence,
            time: Some(time(at)),
            operation,
            actor,
            verb: name_of(verb),
            revision_before,
            revision_after,
            refused: match outcome {
                Outcome::Ok => None,
                Outcome::Failed(code) => Some(code),
            },
            checksum: checksum.map(|sum| sum.to_string()),
            keys,
            previous: previous.to_string(),
            first: first.to_string(),
        }
    }

    fn from_wire(message: v1::AuditRow) -> Result<Self, WireError> {
        Ok(AuditRow {
            sequence: message.sequence,
            time: read_time("time", message.time)?,
            operation: message.operation,
            actor: message.actor,
            verb: named("verb", &message.verb)?,
            revision_before: message.revision_before,
            revision_after: message.revision_after,
            outcome: match message.refused {
                None => Outcome::Ok,
                Some(code) => Outcome::Failed(code),
            },
            checksum: optional_checksum("checksum", message.checksum.as_deref())?,
            keys: message.keys,
            previous: checksum("previous", &message.previous)?,
            first: checksum("first", &message.first)?,
        })
    }
}
