//! Bounded writable layers. Full means full: the write fails and nobody is killed.
//!
//! | upper layer of the root in | beyond the bound | files | costs |
//! |---|---|---|---|
//! | a file system of that size in a sparse file | `ENOSPC` | can be bounded | making and mounting it |
//! | a subvolume of a pool, when the node has one | `EDQUOT` | not counted | next to nothing |
//!
//! A quota of the host's own file system would need neither, but few have one: the kernel this was made on has neither the quota
//! format of ext4 nor that of XFS.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use containerd_client::types::Mount;
use nix::mount::MsFlags;
use portlayer::{
    runtime::DiskPlan,
    store::{StoreError, dir::Trees},
};

use crate::{
    image::io_failed,
    mount::{ensure_room, mount_file},
    place::ContainerPlace,
    pool::{self, Pool},
    program,
};

/// Makes room of the size that was asked for, and puts the upper layer of a root's mounts into it. Idempotent. Blocks.
pub(crate) fn bound(
    mounts: &[Mount],
    plan: &DiskPlan,
    place: &ContainerPlace,
    pool: Option<&Pool>,
) -> Result<Vec<Mount>, StoreError> {
    // Only a file system of its own counts files.
    let disk = match pool.filter(|_| plan.inodes.is_none()) {
        Some(pool) => {
            pool.ready()?;
            // What a start that was broken off has left may be of another size.
            pool.remove(place.subvolume())?;
            pool.create(place.subvolume(), plan.bytes)?;
            place.subvolume().to_owned()
        }
        None => {
            let (file, target) = (place.disk_file(), place.disk());
            if !crate::mount::is_mounted(&target)? {
                make(plan, &file)?;
                fs::create_dir_all(&target).map_err(|error| io_failed("make", &target, error))?;
                // No access times: they would be writes of a task that only reads.
                let flags = MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
                mount_file(&file, "ext4", &target, flags)?;
            }
            target
        }
    };
    mounts.iter().map(|mount| moved(mount, &disk)).collect()
}

/// Removes what [`bound`] made in a pool, once nothing is mounted on it; the rest goes with the place. Idempotent. Blocks.
pub(crate) fn remove(place: &ContainerPlace) -> Result<(), StoreError> {
    pool::remove(place.subvolume())
}

/// What there must be room for when an upper layer is made, or its bound when that is less: an empty file system of 200 GiB takes
/// 6 MiB. The bound itself is a limit and nothing that is set aside: schedulers give many tasks one that all together are more than
/// the disk, and count for themselves. A volume of a size is a promise, and is refused.
const START: u64 = 64 << 20;

fn make(plan: &DiskPlan, file: &Path) -> Result<(), StoreError> {
    ensure_room(file, plan.bytes.min(START))?;
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(file);
    opened
        .and_then(|file| file.set_len(plan.bytes))
        .map_err(|error| io_failed("size", file, error))?;
    // What ext4 itself takes of the inodes (11), and what the layer takes besides its files.
    let inodes = plan
        .inodes
        .map(|inodes| inodes.saturating_add(16).to_string());
    let mut arguments = vec![
        "-q",
        "-F",
        "-m",
        "0",
        // It lives as long as one container: after a crash it is made anew.
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1,nodiscard",
    ];
    if let Some(inodes) = &inodes {
        arguments.extend(["-N", inodes]);
    }
    program::run("mkfs.ext4", &arguments, file, 0).map(drop)
}

/// The same mount with its upper layer in `disk`.
fn moved(mount: &Mount, disk: &Path) -> Result<Mount, StoreError> {
    let (upper, work) = (disk.join("upper"), disk.join("work"));
    let mut moved = mount.clone();
    if mount.r#type != "overlay" {
        // An empty image: its root is the upper layer itself.
        like(Path::new(&mount.source), &upper)?;
        moved.source = upper.display().to_string();
        return Ok(moved);
    }
    for option in &mut moved.options {
        if let Some(directory) = option.strip_prefix("upperdir=") {
            like(Path::new(directory), &upper)?;
            *option = format!("upperdir={}", upper.display());
        } else if option.starts_with("workdir=") {
            fs::create_dir_all(&work).map_err(|error| io_failed("make", &work, error))?;
            *option = format!("workdir={}", work.display());
        }
    }
    Ok(moved)
}

/// Makes a directory with owner and mode of another.
fn like(model: &Path, directory: &Path) -> Result<(), StoreError> {
    let wrong = |error| io_failed("make", directory, error);
    fs::create_dir_all(directory).map_err(wrong)?;
    let stat = fs::metadata(model).map_err(|error| io_failed("look at", model, error))?;
    std::os::unix::fs::chown(directory, Some(stat.uid()), Some(stat.gid())).map_err(wrong)?;
    let mode = fs::Permissions::from_mode(stat.mode() & 0o7777);
    fs::set_permissions(directory, mode).map_err(wrong)
}
