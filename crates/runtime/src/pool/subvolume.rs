//! Subvolumes of a btrfs and their quota groups, as the kernel takes them (linux/btrfs.h): starting `btrfs` for each costs ten times
//! what is done.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// struct btrfs_ioctl_vol_args.
#[repr(C)]
pub(super) struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

/// struct btrfs_ioctl_vol_args_v2.
#[repr(C)]
pub(super) struct SnapshotArgs {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// struct btrfs_ioctl_qgroup_limit_args.
#[repr(C)]
pub(super) struct LimitArgs {
    /// 0 = that of the subvolume the descriptor is in.
    group: u64,
    flags: u64,
    most_referenced: u64,
    most_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// struct btrfs_ioctl_qgroup_create_args.
#[repr(C)]
pub(super) struct GroupArgs {
    create: u64,
    group: u64,
}

/// struct btrfs_ioctl_ino_lookup_args.
#[repr(C)]
pub(super) struct LookupArgs {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

const _: () = assert!(
    size_of::<VolumeArgs>() == 4096
        && size_of::<SnapshotArgs>() == 4096
        && size_of::<LimitArgs>() == 48
        && size_of::<GroupArgs>() == 16
        && size_of::<LookupArgs>() == 4096
);

/// BTRFS_QGROUP_LIMIT_MAX_RFER.
const MOST_REFERENCED: u64 = 1;

/// BTRFS_FIRST_FREE_OBJECTID: the root directory of every subvolume.
const ROOT_DIRECTORY: u64 = 256;

mod call {
    const BTRFS: u8 = 0x94;
    nix::ioctl_write_ptr!(create, BTRFS, 14, super::VolumeArgs);
    nix::ioctl_write_ptr!(destroy, BTRFS, 15, super::VolumeArgs);
    nix::ioctl_readwrite!(lookup, BTRFS, 18, super::LookupArgs);
    nix::ioctl_write_ptr!(snapshot, BTRFS, 23, super::SnapshotArgs);
    nix::ioctl_write_ptr!(group, BTRFS, 42, super::GroupArgs);
    // As the header has it, though the kernel reads it.
    nix::ioctl_read!(limit, BTRFS, 43, super::LimitArgs);
}

/// The directory a path is in, and its name there, at most `N - 1` bytes.
fn split<const N: usize>(path: &Path) -> io::Result<(File, [u8; N])> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path.file_name().map(OsStr::as_bytes).ok_or_else(invalid)?;
    let mut text = [0; N];
    let room = text.get_mut(..name.len()).filter(|room| room.len() < N);
    room.ok_or_else(invalid)?.copy_from_slice(name);
    Ok((File::open(path.parent().ok_or_else(invalid)?)?, text))
}

/// Makes an empty one.
#[allow(unsafe_code, reason = "btrfs speaks ioctl only")]
pub(super) fn create(path: &Path) -> io::Result<()> {
    let (directory, name) = split(path)?;
    let args = VolumeArgs { fd: 0, name };
    // SAFETY: the kernel reads one struct of this layout, asserted above.
    unsafe { call::create(directory.as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Makes one with all that another holds.
#[allow(unsafe_code, reason = "btrfs speaks ioctl only")]
pub(super) fn snapshot(from: &Path, to: &Path) -> io::Result<()> {
    let (directory, name) = split(to)?;
    let source = File::open(from)?;
    let args = SnapshotArgs {
        fd: source.as_raw_fd().into(),
        transaction: 0,
        flags: 0,
        unused: [0; 4],
        name,
    };
    // SAFETY: as in create; the descriptor in it is open until the end of this function.
    unsafe { call::snapshot(directory.as_raw_fd(), &raw const args) }?;
    Ok(())
}

/// Bounds what one refers to, what it shares included.
#[allow(unsafe_code, reason = "btrfs speaks ioctl only")]
pub(super) fn limit(path: &Path, bytes: u64) -> io::Result<()> {
    let directory = File::open(path)?;
    let mut args = LimitArgs {
        group: 0,
        flags: MOST_REFERENCED,
        most_referenced: bytes,
        most_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: the kernel reads one struct of this layout, asserted above, and may write it.
    unsafe { call::limit(directory.as_raw_fd(), &raw mut args) }?;
    Ok(())
}

/// Removes one with all that is in it, and its group.
#[allow(unsafe_code, reason = "btrfs speaks ioctl only")]
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (directory, name) = split(path)?;
    let subvolume = File::open(path)?;
    let mut found = LookupArgs {
        tree: 0,
        object: ROOT_DIRECTORY,
        name: [0; 4080],
    };
    // SAFETY: the kernel reads and writes one struct of this layout, asserted above.
    unsafe { call::lookup(subvolume.as_raw_fd(), &raw mut found) }?;
    drop(subvolume);
    let args = VolumeArgs { fd: 0, name };
    // SAFETY: as in create.
    unsafe { call::destroy(directory.as_raw_fd(), &raw const args) }?;
    let group = GroupArgs {
        create: 0,
        group: found.tree,
    };
    // SAFETY: the kernel reads one struct of this layout, asserted above.
    let removed = unsafe { call::group(directory.as_raw_fd(), &raw const group) };
    if let Err(errno) = removed {
        // Kernels from 6.11 on do it themselves when the last block is gone, and refuse it before.
        tracing::debug!(%errno, group = found.tree, "a quota group is left to the kernel");
    }
    Ok(())
}
