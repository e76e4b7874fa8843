//! The files of an executor or a volume, held while they are copied.

use std::sync::Arc;

use super::CopyError;
use crate::PortLayer;
use crate::archive::Root;
use crate::element::in_flight::Pin;
use crate::element::{ElementId, Kind, StoreKeys, builtin, store_keys};
use crate::error::LocationError;
use crate::runtime::IdMap;
use crate::store::{MountSource, Policy, Store, StoreError};

/// The kernel's overflow id.
const NOBODY: u32 = 65_534;

/// An open tree. [`Tree::release`] it: a volume stays mounted for it until then, or until the node is opened again.
pub(super) struct Tree {
    root: Root,
    uids: IdMap,
    gids: IdMap,
    volume: Option<Volume>,
}

/// A volume that is mounted for the copy.
struct Volume {
    store: Arc<dyn Store>,
    id: ElementId,
    keys: StoreKeys,
    user: ElementId,
    /// Keeps it from being deleted.
    _pin: Pin,
}

impl PortLayer {
    /// The files of a running executor or of a volume.
    pub(super) async fn tree(&self, id: &ElementId, write: bool) -> Result<Tree, CopyError> {
        match id.kind() {
            Kind::Executor => {
                let inside = self.inside(id).await?;
                Ok(Tree {
                    root: Root::from_fd(inside.root),
                    uids: inside.uids,
                    gids: inside.gids,
                    volume: None,
                })
            }
            Kind::Volume if !builtin::is_built_in(id) => self.volume_tree(id, write).await,
            _ => Err(CopyError::NoFiles { id: id.clone() }),
        }
    }

    async fn volume_tree(&self, id: &ElementId, write: bool) -> Result<Tree, CopyError> {
        let location = self.location(id)?;
        if write && location.policy != Policy::ReadWrite {
            return Err(CopyError::Location(LocationError::Policy {
                id: id.clone(),
                location: location.name.clone(),
                policy: location.policy,
                verb: "copying into",
            }));
        }
        self.shared.health.check(&location.name)?;
        let no_files = || CopyError::NoFiles { id: id.clone() };
        let store = location.store.clone().ok_or_else(no_files)?;
        // To the store a copy is one more executor, under a name of its own.
        let user = ElementId::new(Kind::Executor, "copies", &self.operation().id)
            .map_err(|_| no_files())?;
        let pin = self.shared.in_flight.pin(id, &user).await;
        let record = self.record(id)?;
        let keys = store_keys(&record.body).ok_or_else(no_files)?.clone();
        let failed = |source: StoreError| {
            self.shared.health.suspect(&source);
            CopyError::Store {
                id: id.clone(),
                source,
            }
        };
        let source = store.attach(&record, &user).await.map_err(failed)?;
        let volume = Volume {
            store,
            id: id.clone(),
            keys,
            user,
            _pin: pin,
        };
        let opened = match source {
            MountSource::Path(path) => tokio::task::spawn_blocking(move || Root::open(&path))
                .await
                .map_err(std::io::Error::other)
                .and_then(|opened| opened.map_err(std::io::Error::from))
                .map_err(|source| CopyError::Path {
                    id: id.clone(),
                    path: "/".to_owned(),
                    source,
                }),
            MountSource::Tmpfs { .. } => Err(no_files()),
        };
        match opened {
            Ok(root) => Ok(Tree {
                root,
                uids: IdMap::identity(),
                gids: IdMap::identity(),
                volume: Some(volume),
            }),
            Err(error) => {
                volume.release().await;
                Err(error)
            }
        }
    }
}

impl Tree {
    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Owner and group as they are inside.
    pub(super) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let id = |map: &IdMap, id| map.inside(id).unwrap_or(NOBODY);
        (id(&self.uids, uid), id(&self.gids, gid))
    }

    /// Owner and group on the host; who is not inside becomes nobody, and where there is none, root of the inside.
    pub(super) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let id = |map: &IdMap, id| {
            let known = map.outside(id).or_else(|| map.outside(NOBODY));
            known.or_else(|| map.outside(0)).unwrap_or(NOBODY)
        };
        (id(&self.uids, uid), id(&self.gids, gid))
    }

    /// Lets go of it.
    pub(super) async fn release(self) {
        let Tree { root, volume, .. } = self;
        // An open directory would keep the mount busy.
        drop(root);
        if let Some(volume) = volume {
            volume.release().await;
        }
    }
}

impl Volume {
    async fn release(self) {
        let detached = self.store.detach(&self.id, &self.keys, &self.user).await;
        if let Err(error) = detached {
            tracing::warn!(volume = %self.id, %error, "a volume stays mounted after a copy until the node is opened again");
        }
    }
}
