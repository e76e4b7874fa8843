//! Archives put into trees that have something already.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::archive::{TarBuilder, zip_of_tar};

fn put(archive: &[u8], root: &Path, path: &str) -> Result<Extracted, ArchiveError> {
    let me = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    place(
        archive,
        &Root::open(root).unwrap(),
        Path::new(path),
        &ExtractOptions::default(),
        &|_, _| me,
    )
}

fn found(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn entries_go_into_a_directory_and_join_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("in/sub")).unwrap();
    std::fs::set_permissions(root.join("in/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(root.join("in/sub/old"), "old").unwrap();
    std::fs::write(root.join("in/file"), "old").unwrap();
    symlink("/in", root.join("link")).unwrap();
    let tar = TarBuilder::new()
        .dir("./", 0o777)
        .file("file", 0o644, b"new")
        .dir("sub", 0o777)
        .file("sub/new", 0o644, b"x")
        .dir("more/empty", 0o755)
        .finish();
    let zip = zip_of_tar(tar.as_slice(), Vec::new(), &Limits::default()).unwrap();
    for archive in [tar, zip] {
        put(&archive, root, "/link").unwrap();
        assert_eq!(found(&root.join("in")), ["file", "more", "sub"]);
        assert_eq!(found(&root.join("in/sub")), ["new", "old"]);
        assert_eq!(std::fs::read(root.join("in/file")).unwrap(), b"new");
        let mode = root.join("in/sub").metadata().unwrap().permissions().mode();
        assert_eq!(
            mode & 0o7777,
            0o700,
            "a directory that is there keeps its mode"
        );
    }
}

#[test]
fn one_entry_gets_a_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let file = TarBuilder::new().file("a", 0o644, b"1").finish();
    put(&file, root, "/b").unwrap();
    put(&file, root, "b").unwrap();
    assert_eq!(std::fs::read(root.join("b")).unwrap(), b"1");
    let tree = TarBuilder::new()
        .dir(".", 0o750)
        .file("x", 0o644, b"")
        .file("y", 0o644, b"")
        .finish();
    put(&tree, root, "tree").unwrap();
    assert_eq!(found(&root.join("tree")), ["x", "y"]);
    let two = TarBuilder::new()
        .file("x", 0o644, b"")
        .file("y", 0o644, b"")
        .finish();
    assert!(matches!(
        put(&two, root, "two"),
        Err(ArchiveError::NotOne { entries: 2, .. })
    ));
    for path in ["no/such", "b/", "b/x", "missing/"] {
        let refused = put(&file, root, path).unwrap_err();
        assert!(
            matches!(refused, ArchiveError::Tree { act: "open", .. }),
            "{path}: {refused:?}"
        );
    }
    assert_eq!(found(root), ["b", "tree"]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("in/d/full")).unwrap();
    std::fs::write(root.join("in/f"), "old").unwrap();
    let late = TarBuilder::new()
        .file("f", 0o644, b"new")
        .file("../out", 0o644, b"x")
        .finish();
    put(&late, root, "in").unwrap_err();
    assert_eq!(std::fs::read(root.join("in/f")).unwrap(), b"old");
    for tar in [
        TarBuilder::new().file("d", 0o644, b"x").finish(),
        TarBuilder::new().dir("f", 0o755).finish(),
    ] {
        let refused = put(&tar, root, "in").unwrap_err();
        assert!(
            matches!(
                refused,
                ArchiveError::Entry {
                    rule: Rule::InTheWay,
                    ..
                }
            ),
            "{refused:?}"
        );
    }
    assert_eq!(found(&root.join("in")), ["d", "f"]);
    assert_eq!(found(root), ["in"]);
}
