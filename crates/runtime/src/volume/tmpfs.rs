//! Non-persistent volumes: a fresh tmpfs in each executor that binds them.

use async_trait::async_trait;
use portlayer::element::{DataStream, ElementId, Record, StoreKeys};
use portlayer::store::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};

use super::{spec_in, spec_of};

/// Volumes without bytes: what is written is gone when the executor stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct TmpfsVolumes;

#[async_trait]
impl Store for TmpfsVolumes {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: false,
            parent_volume: false,
            data: false,
            bounded: true,
            persistent: false,
        }
    }

    async fn put(&self, put: Put<'_>) -> Result<Stored, StoreError> {
        let spec = spec_of(put.spec)?;
        if put.parent.is_some() {
            return Err(StoreError::InvalidParent(
                "a non-persistent volume is always empty",
            ));
        }
        if put.data.is_some() {
            return Err(StoreError::Unsupported("data in a non-persistent volume"));
        }
        if spec.size_bytes > 0 && spec.freespace_bytes > spec.size_bytes {
            return Err(StoreError::InsufficientSpace {
                need_bytes: spec.freespace_bytes,
                have_bytes: spec.size_bytes,
            });
        }
        Ok(Stored::default())
    }

    async fn remove(&self, _id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        Ok(())
    }

    async fn export(&self, _record: &Record) -> Result<DataStream, StoreError> {
        Err(StoreError::Unsupported("export of a non-persistent volume"))
    }

    async fn attach(
        &self,
        record: &Record,
        _executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let spec = spec_in(record)?;
        Ok(MountSource::Tmpfs {
            size_bytes: spec.size_bytes.max(spec.freespace_bytes),
            mode: spec.mode.unwrap_or(0o755),
        })
    }

    async fn detach(
        &self,
        _id: &ElementId,
        _keys: &StoreKeys,
        _executor: &ElementId,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ensure_freespace(
        &self,
        record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        let spec = spec_in(record)?;
        match spec.size_bytes {
            0 => Ok(()),
            have_bytes if freespace_bytes <= have_bytes => Ok(()),
            have_bytes => Err(StoreError::InsufficientSpace {
                need_bytes: freespace_bytes,
                have_bytes,
            }),
        }
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn sweep(&self, _digest_hex: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
