//! Results and artifacts: paths into a tree that a hostile task has prepared.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use portlayer::archive::{Limits, Root, WriteOptions, read_file, write_at};

use super::report::{Must, Report, Seen};
use super::sentinel::SECRET;

/// What is read of a result at most.
const RESULT: u64 = 10 << 10;

/// Prepares the tree of a hostile task; returns its root.
fn prepare(outside: &Path, beside: &Path) -> Result<PathBuf> {
    let root = beside.join("results/root");
    std::fs::create_dir_all(root.join("dir/deep"))?;
    std::fs::write(root.join("good"), "result")?;
    let secret = outside.join("secret");
    let climb = format!("{}{}", "../".repeat(24), &secret.display().to_string()[1..]);
    for (name, target) in [
        ("absolute", secret.display().to_string()),
        ("relative", climb),
        ("directory", outside.display().to_string()),
        ("proc-root", format!("/proc/1/root{}", secret.display())),
        ("self-root", format!("/proc/self/root{}", secret.display())),
        ("self-fd", "/proc/self/fd/0".to_owned()),
        ("self-exe", "/proc/self/exe".to_owned()),
        ("shadow", "/etc/shadow".to_owned()),
        ("loop", "loop".to_owned()),
        ("first", "second".to_owned()),
        ("second", "directory/secret".to_owned()),
        ("dangling", "nowhere".to_owned()),
        ("dev-zero", "/dev/zero".to_owned()),
    ] {
        symlink(target, root.join(name))?;
    }
    symlink(outside, root.join("dir/deep/out"))?;
    for (name, kind, device) in [
        ("fifo", SFlag::S_IFIFO, 0),
        ("null", SFlag::S_IFCHR, makedev(1, 3)),
        ("zero", SFlag::S_IFCHR, makedev(1, 5)),
        ("tty", SFlag::S_IFCHR, makedev(5, 0)),
        ("disk", SFlag::S_IFBLK, makedev(7, 200)),
        ("socket", SFlag::S_IFSOCK, 0),
    ] {
        mknod(
            &root.join(name),
            kind,
            Mode::from_bits_truncate(0o666),
            device,
        )?;
    }
    std::fs::File::create(root.join("huge"))?.set_len(100 << 30)?;
    std::fs::write(root.join("back\\slash"), "result")?;
    Ok(root)
}

/// Reads results, and takes artifacts as archives, by every such path.
pub(super) fn collect(report: &mut Report) -> Result<()> {
    let outside = report.sentinels().outside().to_owned();
    let beside = outside.parent().unwrap_or(&outside).to_owned();
    let root = prepare(&outside, &beside)?;
    let escape = outside.join("secret");
    let mut paths: Vec<Vec<u8>> = [
        "good",
        "absolute",
        "relative",
        "directory",
        "directory/secret",
        "proc-root",
        "self-root",
        "self-fd",
        "self-exe",
        "shadow",
        "loop",
        "loop/x",
        "first",
        "second",
        "dangling",
        "dev-zero",
        "dir",
        "dir/deep/out",
        "dir/deep/out/secret",
        "fifo",
        "null",
        "zero",
        "tty",
        "disk",
        "socket",
        "huge",
        "",
        ".",
        "..",
        "/",
        "/..",
        "../secret",
        "../../outside/secret",
        "good/",
        "good/.",
        "good/x",
        "/good",
        "//good",
        "./good",
        "dir/../good",
        "dir/deep/out/../secret",
        "back\\slash",
        "dist\\regedit.exe",
        "..\\..\\outside\\secret",
        "/proc/self/root/etc/shadow",
        "/proc/1/environ",
        "/etc/shadow",
        "/dev/mem",
        "~root/.ssh/id_rsa",
        "$(id)",
        "good\n",
        "\u{202e}doog",
    ]
    .iter()
    .map(|path| path.as_bytes().to_vec())
    .collect();
    paths.push(escape.as_os_str().as_bytes().to_vec());
    paths.push(vec![b'a'; 4096]);
    paths.push(vec![b'a'; 300]);
    paths.push(b"a/".repeat(3000));
    paths.push(b"../".repeat(1300));
    paths.push(b"good\0x".to_vec());
    paths.push(b"\xff\xfe".to_vec());
    for path in paths {
        let shown = portlayer::archive::shown(&path);
        let path = PathBuf::from(OsStr::from_bytes(&path));
        for follow in [false, true] {
            let (root, path) = (root.clone(), path.clone());
            let input = format!(
                "{shown} -> result, links {}",
                if follow { "followed" } else { "refused" }
            );
            report.try_input("results", input, Must::Contained, move || {
                let Ok(root) = Root::open(&root) else {
                    return Seen::Escaped("the tree is gone".to_owned());
                };
                match read_file(&root, &path, RESULT, follow) {
                    Err(error) => Seen::Refused(error.to_string()),
                    Ok((bytes, _)) if bytes.len() as u64 > RESULT => {
                        Seen::Escaped("more than asked for".to_owned())
                    }
                    Ok((bytes, size)) => judged(&bytes, size),
                }
            });
        }
        let (root, path) = (root.clone(), path.clone());
        report.try_input(
            "artifacts",
            format!("{shown} -> archive"),
            Must::Contained,
            move || {
                let Ok(root) = Root::open(&root) else {
                    return Seen::Escaped("the tree is gone".to_owned());
                };
                let options = WriteOptions {
                    limits: Limits {
                        bytes: 1 << 20,
                        ..Limits::default()
                    },
                    ..WriteOptions::whole()
                };
                let mut tar = Vec::new();
                match write_at(&root, &path, b"x", &mut tar, &options, &|uid, gid| {
                    (uid, gid)
                }) {
                    Err(error) => Seen::Refused(error.to_string()),
                    Ok(written) => judged(&tar, written.file_bytes),
                }
            },
        );
    }
    Ok(())
}

/// The secret, or the host's own files, in what was read is an escape.
fn judged(bytes: &[u8], size: u64) -> Seen {
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    // A link may name the secret's place; its content may not be there.
    if holds(SECRET.as_bytes()) || holds(b"root:$") || holds(b"root:*:") {
        return Seen::Escaped("the secret was read".to_owned());
    }
    Seen::Contained(format!("{size} bytes"))
}
