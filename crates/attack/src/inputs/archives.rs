//! Hostile tars: the corpus of the extractor, and what comes of combining what was ever used.

use std::os::unix::ffi::OsStrExt;

use portlayer::archive::{EntryKind, TarBuilder, corpus};

use super::sentinel::Sentinels;

/// An archive.
#[derive(Clone)]
pub(super) struct Hostile {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

fn new() -> TarBuilder {
    TarBuilder::new()
}

/// All of them, each under a name of its own.
pub(super) fn all(sentinels: &Sentinels) -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| all.push(Hostile { name, bytes });
    for case in corpus::cases() {
        add(format!("corpus: {}", case.name), case.archive);
    }
    names(sentinels, &mut add);
    links(sentinels, &mut add);
    numbers(&mut add);
    flags(&mut add);
    records(&mut add);
    attributes(&mut add);
    sparse(&mut add);
    super::packed::all(&mut add);
    orders(&mut add);
    all
}

/// Names that lead out, each in every place of a tar that holds a name.
fn names(sentinels: &Sentinels, add: &mut impl FnMut(String, Vec<u8>)) {
    let outside = sentinels.outside().as_os_str().as_bytes();
    let absolute = [outside, b"/pl-escape"].concat();
    let relative = [&b"../".repeat(24)[..], &outside[1..], b"/pl-escape"].concat();
    let targets: [(&str, &[u8]); 14] = [
        ("absolute", &absolute),
        ("relative", &relative),
        ("dotted", b"./././../pl-escape"),
        ("double slash", b"..//..//..//tmp//pl-escape"),
        ("late", b"a/b/c/../../../../../../tmp/pl-escape"),
        ("proc", b"/proc/self/root/tmp/pl-escape"),
        ("cwd", b"/proc/self/cwd/../../pl-escape"),
        ("fd", b"/proc/self/fd/3/../../pl-escape"),
        ("back slash", b"..\\..\\..\\tmp\\pl-escape"),
        ("not utf-8", b"../\xff\xfe/pl-escape"),
        ("newline", b"x\n../../../../tmp/pl-escape"),
        ("dots", b".../....//../../pl-escape"),
        ("trailing", b"../../tmp/pl-escape/."),
        ("device", b"/dev/pl-escape"),
    ];
    for (what, target) in targets {
        let file = |tar: TarBuilder| tar.raw(b'0', b"innocent", b"", 0o644, b"x").finish();
        add(
            format!("name, header: {what}"),
            new()
                .entry(EntryKind::File, target, b"", 0o644, b"x")
                .finish(),
        );
        add(
            format!("name, PAX: {what}"),
            file(new().pax(&[("path", target)])),
        );
        let gnu = [target, b"\0"].concat();
        add(
            format!("name, GNU: {what}"),
            file(new().raw(b'L', b"././@LongLink", b"", 0o644, &gnu)),
        );
        add(
            format!("name, directory: {what}"),
            new()
                .entry(EntryKind::Directory, target, b"", 0o777, b"")
                .finish(),
        );
        let through = new()
            .entry(EntryKind::Symlink, b"link", target, 0o777, b"")
            .file("link", 0o644, b"x")
            .file("link/pl-escape", 0o644, b"x");
        add(format!("name, through a link: {what}"), through.finish());
        add(
            format!("name, hard link to: {what}"),
            new()
                .entry(EntryKind::Hardlink, b"h", target, 0o644, b"")
                .finish(),
        );
    }
    let prefix = |prefix: &[u8]| {
        let mut tar = new().file("pl-escape", 0o644, b"x").finish();
        tar[257..265].copy_from_slice(b"ustar\x0000");
        tar[345..345 + prefix.len()].copy_from_slice(prefix);
        summed(tar)
    };
    add("name, prefix: relative".to_owned(), prefix(b"../../.."));
    add("name, prefix: absolute".to_owned(), prefix(b"/tmp"));
}

/// Links in many steps.
fn links(sentinels: &Sentinels, add: &mut impl FnMut(String, Vec<u8>)) {
    let outside = sentinels.outside().display().to_string();
    let secret = sentinels.secret().display().to_string();
    let chain = |length: usize, last: &str| {
        let mut tar = new().symlink("l0", last);
        for at in 1..length {
            tar = tar.symlink(&format!("l{at}"), &format!("l{}", at - 1));
        }
        tar.file(&format!("l{}/pl-escape", length - 1), 0o644, b"x")
            .finish()
    };
    for length in [2, 10, 39, 41, 200] {
        add(format!("chain of {length} links"), chain(length, &outside));
    }
    let climb = new()
        .dir("a/b/c", 0o755)
        .symlink("a/b/c/up", "..")
        .symlink("a/up", "b/c/up/../..")
        .file("a/up/up/../../../../pl-escape", 0o644, b"x");
    add("links that climb together".to_owned(), climb.finish());
    add(
        "two links that are each other".to_owned(),
        new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", 0o644, b"x")
            .finish(),
    );
    add(
        "a link to itself used as a directory".to_owned(),
        new()
            .symlink("a", "a/a/a")
            .file("a/x", 0o644, b"x")
            .finish(),
    );
    add(
        "hard link to a link, then written".to_owned(),
        new()
            .symlink("s", &secret)
            .hardlink("h", "s")
            .file("h", 0o666, b"x")
            .finish(),
    );
    add(
        "hard link through a link".to_owned(),
        new()
            .symlink("s", &outside)
            .hardlink("h", "s/secret")
            .finish(),
    );
    add(
        "link, directory of that name, file below".to_owned(),
        new()
            .symlink("d", &outside)
            .dir("d", 0o777)
            .file("d/file", 0o644, b"x")
            .finish(),
    );
    add(
        "directory replaced by a link, then used".to_owned(),
        new()
            .dir("d", 0o755)
            .symlink("d", &outside)
            .file("d/file", 0o644, b"x")
            .finish(),
    );
    add(
        "mode of a directory set through a link".to_owned(),
        new()
            .dir("d", 0o700)
            .symlink("d", &outside)
            .dir("d/", 0o777)
            .finish(),
    );
    add(
        "time of a directory set through a link".to_owned(),
        new()
            .mtime(1)
            .dir("d", 0o755)
            .symlink("d", &outside)
            .finish(),
    );
    add(
        "the root twice, the second a link".to_owned(),
        new().dir("./", 0o755).symlink("./.", &outside).finish(),
    );
    add(
        "hard links without end".to_owned(),
        (0..1500)
            .fold(new().file("a", 0o644, b"x"), |tar, at| {
                tar.hardlink(&format!("l{at}"), "a")
            })
            .finish(),
    );
}

/// Every number field with every kind of wrong number.
fn numbers(add: &mut impl FnMut(String, Vec<u8>)) {
    let fields = [
        ("mode", 100, 8),
        ("owner", 108, 8),
        ("group", 116, 8),
        ("size", 124, 12),
        ("time", 136, 12),
        ("checksum", 148, 8),
        ("major", 329, 8),
        ("minor", 337, 8),
    ];
    for (field, at, length) in fields {
        let mut with = |what: &str, value: &[u8]| {
            let mut tar = new()
                .raw(b'3', b"n", b"", 0o644, b"")
                .file("n", 0o644, b"data")
                .finish();
            for start in [0, 512] {
                tar[start + at..start + at + length].fill(b' ');
                let n = value.len().min(length);
                tar[start + at..start + at + n].copy_from_slice(&value[..n]);
            }
            let tar = match field {
                "checksum" => tar,
                _ => summed_at(summed(tar), 512),
            };
            add(format!("number, {field}: {what}"), tar);
        };
        with("letters", b"deadbeef");
        with("eights", b"88888888");
        with("minus", b"-1");
        with("base-256 minus one", &[0xff; 12]);
        with(
            "base-256 largest",
            &[[0x80].as_slice(), &[0xff; 11]].concat(),
        );
        with("only spaces", b"");
        with("sevens", b"777777777777");
    }
}

/// Types nobody knows, and known ones with data they cannot have.
fn flags(add: &mut impl FnMut(String, Vec<u8>)) {
    for flag in [
        b'A', b'D', b'I', b'M', b'N', b'V', b'Z', b'8', b'9', 0x80, 0xff, b'\n', 0x1b,
    ] {
        let tar = new().raw(flag, b"x", b"y", 0o644, b"data").finish();
        add(format!("type {flag:#04x}"), tar);
    }
    for flag in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let inner = new().file("../pl-escape", 0o644, b"x").unfinished();
        let tar = new().raw(flag, b"x", b"y", 0o644, &inner).finish();
        add(
            format!("type {} with an archive as data", char::from(flag)),
            tar,
        );
    }
}

/// PAX records as nobody should write them.
fn records(add: &mut impl FnMut(String, Vec<u8>)) {
    let raw = |data: &[u8]| {
        new()
            .raw(b'x', b"p", b"", 0o644, data)
            .file("a", 0o644, b"x")
            .finish()
    };
    let cases: [(&str, &[u8]); 14] = [
        ("length of zero", b"0 path=x\n"),
        ("length that wraps", b"18446744073709551615 path=x\n"),
        ("length of 400 digits", &[b'9'; 400]),
        ("no equals sign", b"9 pathxx\n"),
        ("no key", b"6 =xx\n"),
        ("no new line", b"9 path=xx"),
        ("negative length", b"-9 path=x\n"),
        ("NUL in a key", b"10 pa\0th=\n"),
        ("nested record", b"26 path=a\n14 path=../b\n\n"),
        ("size with a sign", b"11 size=+5\n"),
        ("size in exponent", b"12 size=1e9\n"),
        ("owner beyond 32 bits", b"18 uid=4294967296\n"),
        ("time beyond 64 bits", b"31 mtime=99999999999999999999\n"),
        ("time that is none", b"14 mtime=NaN\n"),
    ];
    for (what, data) in cases {
        add(format!("PAX: {what}"), raw(data));
    }
    for flag in [b'L', b'K'] {
        let long = |data: &[u8]| {
            new()
                .raw(flag, b"l", b"", 0o644, data)
                .symlink("a", "b")
                .finish()
        };
        add(format!("GNU {}: empty", char::from(flag)), long(b""));
        add(format!("GNU {}: NULs", char::from(flag)), long(&[0; 600]));
        add(
            format!("GNU {}: NUL inside", char::from(flag)),
            long(b"a\0../../b\0"),
        );
        add(
            format!("GNU {}: 900 KiB", char::from(flag)),
            long(&vec![b'x'; 900 << 10]),
        );
        let twice = new()
            .raw(flag, b"l", b"", 0o644, b"one\0")
            .raw(flag, b"l", b"", 0o644, b"../two\0")
            .symlink("a", "b");
        add(format!("GNU {}: twice", char::from(flag)), twice.finish());
    }
    let global = |key: &str, value: &[u8]| {
        let header = new().pax(&[(key, value)]).unfinished();
        let mut tar = [header, new().file("c", 0o644, b"x").finish()].concat();
        tar[156] = b'g';
        summed(tar)
    };
    for (key, value) in [
        ("path", &b"../x"[..]),
        ("linkpath", b"/etc/shadow"),
        ("size", b"99999999"),
        ("uid", b"0"),
    ] {
        add(format!("PAX for all: {key}"), global(key, value));
    }
}

/// Attributes the kernel or the overlay listens to.
fn attributes(add: &mut impl FnMut(String, Vec<u8>)) {
    let names = [
        "security.capability",
        "security.selinux",
        "security.ima",
        "security.evm",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.origin",
        "trusted.overlay.metacopy",
        "trusted.overlay.upper",
        "user.overlay.opaque",
        "user.x",
        "",
        "nonsense",
    ];
    for name in names {
        let key = format!("SCHILY.xattr.{name}");
        for (what, value) in [("y", &b"y"[..]), ("of 60 KiB", &[b'v'; 60 << 10])] {
            let tar = new()
                .pax(&[(&key, value)])
                .file("f", 0o755, b"x")
                .pax(&[(&key, value)])
                .dir("d", 0o755);
            add(format!("attribute {name} {what}"), tar.finish());
        }
    }
    for key in [
        "LIBARCHIVE.xattr.security.capability",
        "RHT.security.selinux",
        "SCHILY.acl.access",
        "SCHILY.fflags",
    ] {
        add(
            format!("attribute record {key}"),
            new().pax(&[(key, b"AQ==")]).file("f", 0o755, b"x").finish(),
        );
    }
    for mode in [0o4755, 0o2755, 0o6777, 0o7777, 0o1777] {
        let tar = new()
            .file("f", mode, b"x")
            .dir("d", mode)
            .hardlink("h", "f");
        add(format!("mode {mode:o}"), tar.finish());
    }
}

fn sparse(add: &mut impl FnMut(String, Vec<u8>)) {
    for keys in [
        &[
            ("GNU.sparse.size", "1099511627776"),
            ("GNU.sparse.numblocks", "1"),
        ][..],
        &[
            ("GNU.sparse.map", "0,1,1099511627775,1"),
            ("GNU.sparse.size", "1099511627776"),
        ],
        &[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.realsize", "9223372036854775807"),
        ],
        &[
            ("GNU.sparse.name", "../pl-escape"),
            ("GNU.sparse.major", "1"),
        ],
    ] {
        let records: Vec<(&str, &[u8])> = keys
            .iter()
            .map(|(key, value)| (*key, value.as_bytes()))
            .collect();
        add(
            format!("sparse by {}", keys[0].0),
            new().pax(&records).file("s", 0o644, b"1\n0\n1\n").finish(),
        );
    }
    add(
        "file of zeros".to_owned(),
        new().file("zeros", 0o644, &vec![0; 7 << 20]).finish(),
    );
    add(
        "size without data".to_owned(),
        new()
            .raw_sized(b'0', b"big", b"", 0o644, 1 << 50, b"")
            .unfinished(),
    );
}

/// Entries in orders and numbers nobody expects.
fn orders(add: &mut impl FnMut(String, Vec<u8>)) {
    add(
        "cases collide".to_owned(),
        new()
            .file("A", 0o644, b"1")
            .file("a", 0o644, b"2")
            .dir("a/", 0o755)
            .finish(),
    );
    add(
        "a file used as a directory".to_owned(),
        new()
            .file("f", 0o644, b"x")
            .file("f/g", 0o644, b"x")
            .finish(),
    );
    add(
        "a directory that is a file".to_owned(),
        new()
            .dir("d", 0o755)
            .file("d/f", 0o644, b"")
            .file("d", 0o644, b"x")
            .finish(),
    );
    add(
        "many duplicates".to_owned(),
        (0..1900)
            .fold(new(), |tar, _| tar.file("same", 0o644, b"x"))
            .finish(),
    );
    add(
        "directories forever".to_owned(),
        new()
            .entry(EntryKind::Directory, &b"d/".repeat(127), b"", 0, b"")
            .finish(),
    );
    add(
        "unreadable directories".to_owned(),
        new()
            .dir("d", 0)
            .file("d/f", 0, b"x")
            .dir("d/e", 0)
            .finish(),
    );
    for marker in [
        ".wh.x",
        ".wh..wh..opq",
        ".wh..wh.plnk",
        ".wh..wh.aufs",
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh.../x",
    ] {
        add(
            format!("whiteout {marker}"),
            new()
                .dir("d", 0o755)
                .file(&format!("d/{marker}"), 0o644, b"")
                .finish(),
        );
    }
    add(
        "whiteout as a device".to_owned(),
        new().device(0, 0).raw(b'3', b"gone", b"", 0, b"").finish(),
    );
    for (major, minor) in [(1, 1), (8, 0), (1, 11), (10, 200), (7, 0)] {
        let tar = new()
            .device(major, minor)
            .raw(b'4', b"node", b"", 0o666, b"")
            .raw(b'3', b"node2", b"", 0o666, b"");
        add(format!("device {major}:{minor}"), tar.finish());
    }
    for name in [
        "dev",
        "proc",
        "sys",
        "dev/null",
        "proc/self",
        "sys/fs/cgroup",
        "dev/.portlayer",
        "etc/hosts",
    ] {
        add(
            format!("{name} as a link"),
            new().symlink(name, "/pl-escape").finish(),
        );
        add(
            format!("{name} as a file"),
            new().file(name, 0o666, b"x").finish(),
        );
    }
    for name in [
        "a\x1b]52;c;cm0=\x07",
        "a\u{202e}b",
        "a\r\nb",
        "-rf",
        "$(id)",
        "a\0b",
        "\u{feff}",
        "con",
        "...",
    ] {
        add(
            format!("name {name:?}"),
            new()
                .entry(EntryKind::File, name.as_bytes(), b"", 0o644, b"x")
                .finish(),
        );
    }
}

fn summed(tar: Vec<u8>) -> Vec<u8> {
    summed_at(tar, 0)
}

/// Makes the checksum of the header at an offset right.
fn summed_at(mut tar: Vec<u8>, at: usize) -> Vec<u8> {
    let header = &mut tar[at..at + 512];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}
