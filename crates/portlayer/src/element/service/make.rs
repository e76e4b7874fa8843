//! From a checked input to body and bytes, by kind.

use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::{builtin, fields, inherit};
use crate::PortLayer;
use crate::compose::Composition;
use crate::element::{
    Body, Checksum, DataStream, ElementId, ExecutorBody, ImageBody, ImageSpec, LogBody,
    MAX_DEFINITION_BYTES, NetworkBody, Record, Spec, State, StoreKeys, TaskBody, VolumeBody,
};
use crate::error::CreateError;
use crate::store::{Location, ProgressSink, Put, StoreError, Stored};
use crate::task::{ImageDefaults, TaskSpec};

/// The part of a new element that becomes body and bytes.
pub(super) struct Input {
    pub(super) spec: Spec,
    pub(super) parent: Option<Record>,
    pub(super) data: Option<DataStream>,
    pub(super) checksum: Option<Checksum>,
    pub(super) progress: Option<ProgressSink>,
}

/// What became of it.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) body: Body,
    pub(super) checksum: Option<Checksum>,
    pub(super) size: u64,
    pub(super) state: State,
    /// The data stream of a task.
    pub(super) definition: Option<Vec<u8>>,
}

impl Made {
    fn plain(body: Body, state: State) -> Self {
        Self {
            body,
            checksum: None,
            size: 0,
            state,
            definition: None,
        }
    }

    fn stored(body: Body, checksum: Option<Checksum>, size: u64) -> Self {
        Self {
            checksum,
            size,
            ..Self::plain(body, State::Ready)
        }
    }
}

impl PortLayer {
    /// Makes body and bytes; nothing is left of them after an error or when `cancelled` comes first.
    pub(super) async fn make(
        &self,
        id: &ElementId,
        location: &Location,
        mut input: Input,
        cancelled: &CancellationToken,
    ) -> Result<Made, CreateError> {
        match input.spec.clone() {
            Spec::Image(spec) => {
                let parent = input.parent.clone();
                let stored = self.put(id, location, input, cancelled).await?;
                Ok(image(spec, parent.as_ref(), stored))
            }
            Spec::Volume(spec) => {
                let Stored {
                    keys,
                    checksum,
                    size,
                    ..
                } = self.put(id, location, input, cancelled).await?;
                let body = Body::Volume(Box::new(VolumeBody { spec, keys }));
                Ok(Made::stored(body, checksum, size))
            }
            Spec::Task(spec) => {
                let spec = complete(id, *spec, input.parent.as_ref())?;
                let definition = match input.data.take() {
                    Some(data) => Some(tokio::select! {
                        read = definition(id, data, input.checksum) => read?,
                        () = cancelled.cancelled() => return Err(abandoned(id)),
                    }),
                    None => None,
                };
                let body = Body::Task(Box::new(TaskBody { spec }));
                Ok(Made {
                    checksum: definition.as_deref().map(Checksum::of),
                    size: definition.as_ref().map_or(0, |bytes| bytes.len() as u64),
                    definition,
                    ..Made::plain(body, State::Ready)
                })
            }
            Spec::Executor(spec) => {
                let body = ExecutorBody {
                    spec: *spec,
                    composition: Composition::default(),
                };
                Ok(Made::plain(Body::Executor(Box::new(body)), State::Created))
            }
            Spec::Network(settings) => Ok(Made::plain(
                Body::Network(NetworkBody { settings }),
                State::Ready,
            )),
            Spec::Log(settings) => Ok(Made::plain(Body::Log(LogBody { settings }), State::Ready)),
        }
    }

    /// Has the store make the bytes of an image or volume.
    async fn put(
        &self,
        id: &ElementId,
        location: &Location,
        input: Input,
        cancelled: &CancellationToken,
    ) -> Result<Stored, CreateError> {
        let failed = |source| CreateError::Store {
            id: id.clone(),
            source,
        };
        let Some(store) = &location.store else {
            return Err(failed(StoreError::Unsupported("bytes")));
        };
        if input.data.is_some() && !store.capabilities().data {
            return Err(failed(StoreError::Unsupported("data")));
        }
        // The empty image is nothing to start from.
        let parent = input
            .parent
            .as_ref()
            .filter(|parent| !builtin::is_scratch(&parent.id));
        let data = match parent {
            Some(parent) if input.data.is_none() && !store.shares_backing(parent) => {
                Some(self.tree_of(parent).await.map_err(failed)?)
            }
            _ => input.data,
        };
        let put = store.put(Put {
            id,
            spec: &input.spec,
            parent,
            data,
            checksum: input.checksum,
            progress: input.progress,
        });
        tokio::select! {
            stored = put => stored.map_err(|error| {
                self.shared.health.suspect(&error);
                failed(error)
            }),
            () = cancelled.cancelled() => {
                self.sweep_one(location, id).await;
                Err(abandoned(id))
            }
        }
    }

    /// The file system of a parent whose backing the child's store does not share.
    async fn tree_of(&self, parent: &Record) -> Result<DataStream, StoreError> {
        let store = self
            .shared
            .locations
            .get(parent.id.location())
            .and_then(|location| location.store.as_ref())
            .ok_or(StoreError::InvalidParent("its location has no bytes"))?;
        store.export_tree(parent).await
    }

    /// Removes the bytes of an element whose record could not be made. What cannot be removed now is garbage for the
    /// sweep.
    pub(super) async fn drop_bytes(&self, id: &ElementId, location: &Location, made: &Made) {
        let Some(keys) = store_keys(&made.body) else {
            return;
        };
        if let Some(store) = &location.store
            && let Err(error) = store.remove(id, keys).await
        {
            tracing::warn!(%id, %error, "bytes without a record are left to the sweep");
        }
    }

    /// The same when it is not even known what keys the store would have given.
    async fn sweep_one(&self, location: &Location, id: &ElementId) {
        if let Some(store) = &location.store
            && let Err(error) = store.sweep(&id.digest_hex()).await
        {
            tracing::warn!(%id, %error, "bytes of a cancelled create are left to the sweep");
        }
    }
}

/// The store's keys of an element with bytes.
pub(crate) fn store_keys(body: &Body) -> Option<&StoreKeys> {
    match body {
        Body::Image(image) => Some(&image.keys),
        Body::Volume(volume) => Some(&volume.keys),
        Body::Task(_) | Body::Executor(_) | Body::Network(_) | Body::Log(_) => None,
    }
}

fn image(spec: ImageSpec, parent: Option<&Record>, stored: Stored) -> Made {
    // A metadata-only image has its parent's bytes, so it has their sum, size and defaults.
    let shared = parent.filter(|_| stored.metadata_only);
    let checksum = stored
        .checksum
        .or(shared.and_then(|parent| parent.checksum));
    let size = shared.map_or(stored.size, |parent| parent.size);
    let defaults = stored.defaults.or_else(|| shared.and_then(image_defaults));
    let body = Body::Image(Box::new(ImageBody {
        spec,
        keys: stored.keys,
        metadata_only: stored.metadata_only,
        defaults: defaults.unwrap_or_default(),
    }));
    Made::stored(body, checksum, size)
}

fn image_defaults(record: &Record) -> Option<ImageDefaults> {
    match &record.body {
        Body::Image(image) => Some(image.defaults.clone()),
        _ => None,
    }
}

/// The task with the fields of its parent filled in; together they must keep the rules too.
fn complete(
    id: &ElementId,
    spec: TaskSpec,
    parent: Option<&Record>,
) -> Result<TaskSpec, CreateError> {
    let Some(Body::Task(parent)) = parent.map(|parent| &parent.body) else {
        return Ok(spec);
    };
    let spec = inherit::inherit(spec, &parent.spec);
    fields::check_task(&spec).map_err(|error| error.of(id))?;
    Ok(spec)
}

/// Reads the data stream of a task. Errors: `InvalidField` when it is too long, `Store` when the stream fails or its
/// sum is another than was said.
async fn definition(
    id: &ElementId,
    data: DataStream,
    expected: Option<Checksum>,
) -> Result<Vec<u8>, CreateError> {
    let failed = |source| CreateError::Store {
        id: id.clone(),
        source,
    };
    let mut bytes = Vec::new();
    data.take(MAX_DEFINITION_BYTES + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| failed(StoreError::Data(error)))?;
    if bytes.len() as u64 > MAX_DEFINITION_BYTES {
        return Err(CreateError::InvalidField {
            id: id.clone(),
            field: "data".into(),
            rule: "a definition is at most 1048576 bytes".into(),
        });
    }
    let actual = Checksum::of(&bytes);
    match expected {
        Some(expected) if expected != actual => {
            Err(failed(StoreError::ChecksumMismatch { expected, actual }))
        }
        _ => Ok(bytes),
    }
}

/// What a create ends with when its caller went away; nobody reads it.
fn abandoned(id: &ElementId) -> CreateError {
    let gone = std::io::Error::new(std::io::ErrorKind::Interrupted, "the caller went away");
    CreateError::Store {
        id: id.clone(),
        source: StoreError::Data(gone),
    }
}
