//! Extraction into real directories.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::archive::{TarBuilder, write_tree};

fn unpack(archive: &[u8], keep_setid: bool) -> (tempfile::TempDir, Extracted) {
    let dir = tempfile::tempdir().unwrap();
    let options = ExtractOptions {
        keep_setid,
        ..ExtractOptions::default()
    };
    let got = extract(archive, &Root::open(dir.path()).unwrap(), &options).unwrap();
    (dir, got)
}

#[test]
fn owners_modes_times_and_links_survive_a_round_trip() {
    let owner = nix::unistd::geteuid().as_raw();
    let group = nix::unistd::getegid().as_raw();
    let archive = TarBuilder::new()
        .owner(owner, group)
        .mtime(1_000_000)
        .dir("d", 0o2750)
        .file("d/f", 0o640, b"hello")
        .file("d/deep/made/parents", 0o600, &[1; 100_000])
        .hardlink("d/g", "d/f")
        .symlink("s", "/d/f")
        .entry(
            EntryKind::File,
            &[b"n".repeat(90), b"/".to_vec(), b"m".repeat(200)].concat(),
            b"",
            0o644,
            b"long",
        )
        .finish();
    let (first, got) = unpack(&archive, true);
    assert_eq!(got.file_bytes, 5 + 100_000 + 4);
    let mut out = Vec::new();
    write_tree(&Root::open(first.path()).unwrap(), &mut out).unwrap();
    let (second, _) = unpack(&out, true);
    let path = second.path();
    assert_eq!(std::fs::read(path.join("d/f")).unwrap(), b"hello");
    assert_eq!(
        path.join("d/f").metadata().unwrap().ino(),
        path.join("d/g").metadata().unwrap().ino()
    );
    assert_eq!(path.join("d/f").metadata().unwrap().mtime(), 1_000_000);
    assert_eq!(path.join("d").metadata().unwrap().mtime(), 1_000_000);
    assert_eq!(
        path.join("d").metadata().unwrap().permissions().mode() & 0o7777,
        0o2750
    );
    assert_eq!(
        std::fs::read_link(path.join("s")).unwrap(),
        Path::new("/d/f")
    );
    assert_eq!(
        std::fs::read_dir(path.join("n".repeat(90)))
            .unwrap()
            .count(),
        1
    );
    let mut again = Vec::new();
    write_tree(&Root::open(second.path()).unwrap(), &mut again).unwrap();
    // The parent made on the way has no time in the archive; everything else is byte for byte the same.
    assert_eq!(out.len(), again.len());
}

#[test]
fn setuid_is_dropped_unless_asked_for() {
    let owner = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let archive = TarBuilder::new()
        .owner(owner.0, owner.1)
        .file("su", 0o4755, b"x")
        .finish();
    let mode = |dir: &tempfile::TempDir| dir.path().join("su").metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(&unpack(&archive, false).0), 0o755);
    assert_eq!(mode(&unpack(&archive, true).0), 0o4755);
}

#[test]
fn a_replaced_original_does_not_change_its_hard_links() {
    let owner = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let archive = TarBuilder::new()
        .owner(owner.0, owner.1)
        .file("a", 0o644, b"old")
        .hardlink("b", "a")
        .file("a", 0o644, b"new")
        .finish();
    let (dir, _) = unpack(&archive, false);
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"old");
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
}

#[test]
fn attributes_are_set_only_when_asked_for() {
    let owner = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.note", b"hello"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    let archive = TarBuilder::new()
        .owner(owner.0, owner.1)
        .pax(records)
        .file("f", 0o644, b"x")
        .pax(records)
        .dir("d", 0o755)
        .finish();
    let get = |attributes| {
        // Not in /tmp, which may be a file system without such attributes.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let options = ExtractOptions {
            attributes,
            ..ExtractOptions::default()
        };
        extract(
            archive.as_slice(),
            &Root::open(dir.path()).unwrap(),
            &options,
        )
        .unwrap();
        ["f", "d"].map(|name| {
            let mut value = [0; 16];
            let path = dir.path().join(name);
            let overlay = rustix::fs::getxattr(&path, "trusted.overlay.opaque", &mut value[..]);
            assert!(overlay.is_err(), "an overlay attribute was set");
            rustix::fs::getxattr(&path, "user.note", &mut value[..]).ok()
        })
    };
    assert_eq!(get(Attributes::None), [None, None]);
    assert_eq!(get(Attributes::User), [Some(5), Some(5)]);
    assert_eq!(get(Attributes::All), [Some(5), Some(5)]);
}

#[test]
fn zeros_become_holes_and_the_length_is_right() {
    let owner = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let mut data = vec![0; 4 << 20];
    data[2 << 20] = 1;
    let archive = TarBuilder::new()
        .owner(owner.0, owner.1)
        .file("sparse", 0o644, &data)
        .finish();
    let (dir, _) = unpack(&archive, false);
    let path = dir.path().join("sparse");
    assert_eq!(std::fs::read(&path).unwrap(), data);
    assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20);
}
