//! Where the kernel cannot map the ids of a mount: every file of a root changes its owner, in the upper layer of its executor.
//! Costs a copy of the image for each start.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

use portlayer::runtime::IdRange;

/// Gives everything at and below a directory to the range. Links are not followed; nobody else may be in there yet. Idempotent.
/// Blocks.
pub(crate) fn reown(root: &Path, range: IdRange) -> io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        give(&directory, &fs::symlink_metadata(&directory)?, range)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let stat = entry.metadata()?;
            if stat.is_dir() {
                open.push(entry.path());
            } else {
                give(&entry.path(), &stat, range)?;
            }
        }
    }
    Ok(())
}

fn give(path: &Path, stat: &fs::Metadata, range: IdRange) -> io::Result<()> {
    let (uid, gid) = (range.host(stat.uid()), range.host(stat.gid()));
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    lchown(path, uid, gid)?;
    // A change of owner takes these away.
    if !stat.is_symlink() && stat.mode() & 0o6000 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(stat.mode() & 0o7777))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_changes_its_owner_once_and_links_are_not_followed() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test changes owners and needs root"
        );
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::write(&outside, b"").unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/su"), b"").unwrap();
        fs::set_permissions(root.join("a/b/su"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        fs::hard_link(root.join("a/b/su"), root.join("again")).unwrap();
        let range = IdRange::of_slot(3).unwrap();
        for _ in 0..2 {
            reown(&root, range).unwrap();
            for path in ["", "a", "a/b", "a/b/su", "link", "again"] {
                let stat = fs::symlink_metadata(root.join(path)).unwrap();
                assert_eq!(
                    (stat.uid(), stat.gid()),
                    (range.first, range.first),
                    "{path}"
                );
            }
        }
        assert_eq!(
            fs::metadata(root.join("again")).unwrap().mode() & 0o7777,
            0o4755
        );
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }
}
