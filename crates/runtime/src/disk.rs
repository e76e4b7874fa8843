//! Bounded writable layers: a file system of the size that was asked for, in a sparse file, holds the upper layer of the root. Full
//! means full, as on a disk: the write fails with `ENOSPC` and nobody is killed.
//!
//! A quota of the host's own file system would be cheaper, but few have one: the kernel this was made on has neither the quota
//! format of ext4 nor XFS.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use containerd_client::types::Mount;
use nix::mount::MsFlags;
use portlayer::{runtime::DiskPlan, store::StoreError};

use crate::{
    e2fs,
    image::io_failed,
    mount::{ensure_room, mount_ext4},
};

/// Makes the file system in `file`, mounts it at `target`, and puts the upper layer of a root's mounts into it. Idempotent. Blocks.
pub(crate) fn bound(
    mounts: &[Mount],
    plan: &DiskPlan,
    file: &Path,
    target: &Path,
) -> Result<Vec<Mount>, StoreError> {
    if !crate::mount::is_mounted(target)? {
        make(plan, file)?;
        fs::create_dir_all(target).map_err(|error| io_failed("make", target, error))?;
        // No access times: they would be writes of a task that only reads.
        mount_ext4(file, target, MsFlags::MS_NODEV | MsFlags::MS_NOATIME)?;
    }
    mounts.iter().map(|mount| moved(mount, target)).collect()
}

fn make(plan: &DiskPlan, file: &Path) -> Result<(), StoreError> {
    ensure_room(file, plan.bytes)?;
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
    e2fs::run("mkfs.ext4", &arguments, file, 0)
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
