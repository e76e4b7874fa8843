//! Volumes that need the kernel's or containerd's help: copy-on-write snapshots, tmpfs, bounded block files, NFS.
//!
//! | store | bytes are | attach | bound | from an image |
//! |---|---|---|---|---|
//! | [`CowVolumes`] | a snapshot of containerd's | mount of the snapshot | no | copy-on-write |
//! | [`TmpfsVolumes`] | nowhere | a tmpfs inside the container | yes | no |
//! | [`BlockVolumes`] | ext4 in a sparse file | loop mount | yes | copy |
//! | [`DirStore`] over a [`Pool`] | a subvolume of a btrfs in one file | nothing | yes | copy; from a volume nothing |
//! | [`NfsVolumes`] | a directory on a server | a directory of one mount | no | no |
//!
//! Every put fills the volume where nobody sees it yet and removes it when anything fails.

mod block;
mod cow;
mod locks;
mod nfs;
mod populate;
mod tmpfs;

pub use block::{BlockConfig, BlockVolumes};
pub use cow::{CowConfig, CowVolumes};
pub use nfs::{
    DirectoryMount, KernelNfs, NfsConfig, NfsMount, NfsTarget, NfsTargetError, NfsVolumes,
};
pub use tmpfs::TmpfsVolumes;

#[cfg(doc)]
use crate::pool::Pool;
#[cfg(doc)]
use portlayer::store::dir::DirStore;

use portlayer::element::{Body, Record, Spec, VolumeSpec};
use portlayer::store::StoreError;

/// The volume part of a spec.
fn spec_of(spec: &Spec) -> Result<&VolumeSpec, StoreError> {
    match spec {
        Spec::Volume(spec) => Ok(spec),
        _ => Err(StoreError::Unsupported("elements that are not volumes")),
    }
}

/// The volume spec in a record.
fn spec_in(record: &Record) -> Result<&VolumeSpec, StoreError> {
    match &record.body {
        Body::Volume(volume) => Ok(&volume.spec),
        _ => Err(StoreError::Unsupported("elements that are not volumes")),
    }
}
