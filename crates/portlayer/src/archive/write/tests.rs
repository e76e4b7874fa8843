//! Trees written and read back.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::archive::{EntryKind, TarReader};

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path();
    std::fs::create_dir_all(path.join("d/e")).unwrap();
    std::fs::write(path.join("d/f"), "hello").unwrap();
    std::fs::hard_link(path.join("d/f"), path.join("d/g")).unwrap();
    symlink("/etc/passwd", path.join("d/s")).unwrap();
    nix::unistd::mkfifo(&path.join("d/p"), Mode::S_IRUSR).unwrap();
    dir
}

fn names(tar: &[u8], limits: Limits) -> Vec<(String, EntryKind)> {
    let mut reader = TarReader::new(tar, limits).unwrap();
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        found.push((String::from_utf8(entry.path).unwrap(), entry.kind));
    }
    found
}

fn written(
    dir: &Path,
    path: &str,
    name: &[u8],
    options: &WriteOptions,
) -> Vec<(String, EntryKind)> {
    let root = Root::open(dir).unwrap();
    let mut out = Vec::new();
    let as_is = |uid, gid| (uid, gid);
    write_at(&root, Path::new(path), name, &mut out, options, &as_is).unwrap();
    names(&out, options.limits)
}

#[test]
fn one_thing_is_written_under_another_name() {
    let dir = tree();
    let whole = WriteOptions::whole();
    assert_eq!(
        written(dir.path(), "d/f", b"x", &whole),
        [("x".to_owned(), EntryKind::File)]
    );
    assert_eq!(
        written(dir.path(), "/d/s", b"", &whole),
        [("s".to_owned(), EntryKind::Symlink)]
    );
    let found = written(dir.path(), "d", b"top", &whole);
    let kinds: Vec<_> = found
        .iter()
        .map(|(name, kind)| (name.as_str(), *kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("top", EntryKind::Directory),
            ("top/e", EntryKind::Directory),
            ("top/f", EntryKind::File),
            ("top/g", EntryKind::Hardlink),
            ("top/s", EntryKind::Symlink),
        ]
    );
}

#[test]
fn options_say_what_goes_along() {
    let dir = tree();
    let mut options = WriteOptions::whole();
    options.hard_links = false;
    options.limits.special_nodes = true;
    let found = written(dir.path(), "d", b"", &options);
    assert!(found.contains(&("g".to_owned(), EntryKind::File)));
    assert!(found.contains(&("p".to_owned(), EntryKind::Fifo)));
    let long = "n".repeat(180);
    std::fs::write(dir.path().join("d").join(&long), "x").unwrap();
    let file = dir.path().join("d").join(&long);
    rustix::fs::setxattr(&file, "user.note", b"hi", rustix::fs::XattrFlags::empty()).unwrap();
    options.attributes = Attributes::User;
    let mut out = Vec::new();
    let root = Root::open(dir.path()).unwrap();
    let as_is = |uid, gid| (uid, gid);
    write_at(&root, Path::new("d"), b"", &mut out, &options, &as_is).unwrap();
    let mut reader = TarReader::new(out.as_slice(), options.limits).unwrap();
    let mut notes = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry
            .extra
            .contains_key(b"SCHILY.xattr.user.note".as_slice())
        {
            assert_eq!(entry.path, long.as_bytes());
            notes += 1;
        }
    }
    assert_eq!(notes, 1);
}

#[test]
fn limits_end_it_before_anything_is_read() {
    let dir = tree();
    let huge = std::fs::File::create(dir.path().join("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert_eq!(huge.metadata().unwrap().blocks(), 0);
    let root = Root::open(dir.path()).unwrap();
    let write = |limits| {
        let options = WriteOptions {
            limits,
            ..WriteOptions::whole()
        };
        let as_is = |uid, gid| (uid, gid);
        write_at(&root, Path::new("."), b"", io::sink(), &options, &as_is).unwrap_err()
    };
    assert!(matches!(
        write(Limits::default()),
        ArchiveError::TooManyBytes { .. }
    ));
    std::fs::remove_file(dir.path().join("huge")).unwrap();
    let few = Limits {
        entries: 2,
        ..Limits::default()
    };
    assert!(matches!(write(few), ArchiveError::TooManyEntries { .. }));
    let flat = Limits {
        depth: 1,
        ..WriteOptions::whole().limits
    };
    assert!(write(flat).is_bad_archive());
    let hasty = Limits {
        time: Duration::ZERO,
        ..WriteOptions::whole().limits
    };
    assert!(matches!(write(hasty), ArchiveError::TooSlow { .. }));
}
