//! Hostile and tricky archives that everything which takes archives must survive.
//!
//! Used like a conformance suite: by the unit tests of the extractor, and by the tests that feed image layers and
//! volume data to a real node. Sources: the CVEs and experiments of tar, docker cp, kubectl cp and containerd.

use std::io::Write;

use super::{EntryKind, Limits, TarBuilder};

/// What has to happen with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A typed error, nothing changed.
    Refused,
    /// Taken, and nothing outside the root touched.
    Accepted,
    /// As data of a volume it is taken, as an image layer it is refused.
    LayerRefused,
}

/// One archive of the corpus.
#[derive(Debug, Clone)]
pub struct Case {
    /// Short name for messages.
    pub name: &'static str,
    /// The bytes.
    pub archive: Vec<u8>,
    /// What has to happen under [`limits`].
    pub verdict: Verdict,
}

/// The limits the corpus is made for: small, so that bombs stay cheap to build.
pub fn limits() -> Limits {
    Limits {
        bytes: 8 << 20,
        entries: 2000,
        ratio: 100,
        ratio_floor: 1 << 20,
        ..Limits::default()
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut refused = |name, archive| {
        cases.push(Case {
            name,
            archive,
            verdict: Verdict::Refused,
        })
    };
    names(&mut refused);
    links(&mut refused);
    nodes(&mut refused);
    formats(&mut refused);
    bombs(&mut refused);
    let mut layer = |name, archive| {
        cases.push(Case {
            name,
            archive,
            verdict: Verdict::LayerRefused,
        })
    };
    layers(&mut layer);
    let mut accepted = |name, archive| {
        cases.push(Case {
            name,
            archive,
            verdict: Verdict::Accepted,
        })
    };
    tricky(&mut accepted);
    cases
}

fn new() -> TarBuilder {
    TarBuilder::new()
}

fn names(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    add(
        "parent directory",
        new().file("../escape", 0o644, b"x").finish(),
    );
    add(
        "parent in the middle",
        new().file("a/b/../../../escape", 0o644, b"x").finish(),
    );
    add("parent at the end", new().dir("a/..", 0o755).finish());
    add(
        "absolute with parent",
        new().file("/../../escape", 0o644, b"x").finish(),
    );
    add(
        "pax path override",
        new()
            .pax(&[("path", b"../escape")])
            .file("innocent", 0o644, b"x")
            .finish(),
    );
    add(
        "pax path with NUL",
        new()
            .pax(&[("path", b"a\0b")])
            .file("innocent", 0o644, b"x")
            .finish(),
    );
    add(
        "gnu long name with parent",
        new()
            .entry(EntryKind::File, &long("../"), b"", 0o644, b"x")
            .finish(),
    );
    add(
        "6,000 character name",
        new()
            .entry(EntryKind::File, &[b'n'; 6000], b"", 0o644, b"x")
            .finish(),
    );
    add(
        "300 character component",
        new()
            .entry(EntryKind::File, &[b'n'; 300], b"", 0o644, b"x")
            .finish(),
    );
    add(
        "500 levels",
        new()
            .entry(EntryKind::Directory, &b"d/".repeat(500), b"", 0o755, b"")
            .finish(),
    );
    add("file without a name", new().file("", 0o644, b"x").finish());
    add("file named dot", new().file(".", 0o644, b"x").finish());
    add("root as a symlink", new().symlink("./", "/etc").finish());
}

fn links(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    add(
        "hard link to parent",
        new().hardlink("shadow", "../../etc/shadow").finish(),
    );
    add(
        "hard link through pax",
        new()
            .pax(&[("linkpath", b"../../etc/shadow")])
            .hardlink("s", "ok")
            .finish(),
    );
    add("hard link to the root", new().hardlink("r", "/").finish());
    add(
        "hard link without a target",
        new().hardlink("r", "").finish(),
    );
    add("symlink without a target", new().symlink("r", "").finish());
    add(
        "symlink target with NUL",
        new()
            .pax(&[("linkpath", b"a\0b")])
            .symlink("r", "x")
            .finish(),
    );
    add(
        "symlink target of 6,000",
        new()
            .entry(EntryKind::Symlink, b"r", &[b't'; 6000], 0o777, b"")
            .finish(),
    );
}

fn nodes(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    for (name, kind) in [
        ("character device", EntryKind::CharDevice),
        ("block device", EntryKind::BlockDevice),
        ("fifo", EntryKind::Fifo),
    ] {
        add(name, new().entry(kind, b"node", b"", 0o666, b"").finish());
    }
    add(
        "device with a harmless name",
        new()
            .dir("dev", 0o755)
            .raw(b'4', b"dev/sda", b"", 0o666, b"")
            .finish(),
    );
    add(
        "unknown type",
        new().raw(b'V', b"label", b"", 0o644, b"").finish(),
    );
    add(
        "gnu sparse of 1 TiB",
        new()
            .raw_sized(b'S', b"sparse", b"", 0o644, 1 << 30, b"")
            .finish(),
    );
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.realsize", b"1099511627776"),
    ];
    add(
        "pax sparse of 1 TiB",
        new().pax(sparse).file("sparse", 0o644, b"x").finish(),
    );
}

fn formats(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    let plain = new().file("a", 0o644, &[7; 3000]).finish();
    add("empty", Vec::new());
    add(
        "not a tar",
        b"this is not an archive, whatever its name says. ".repeat(40),
    );
    add("cut in a header", plain[..200].to_vec());
    add("cut in the data", plain[..2000].to_vec());
    add("no end marker", new().file("a", 0o644, b"x").unfinished());
    add("gzip cut short", gzip(&plain)[..30].to_vec());
    add("gzip damaged", damaged(gzip(&noise(20_000)), 9_000));
    add("zstd damaged", damaged(zstd(&noise(20_000)), 9_000));
    add("header bit flipped", damaged(plain.clone(), 3));
    add("lone zero block", [vec![0; 512], plain.clone()].concat());
    add(
        "second archive after the end",
        [plain.clone(), new().file("../b", 0o644, b"x").finish()].concat(),
    );
    add(
        "negative size",
        base256(new().file("a", 0o644, b"x").finish(), [0xff; 12]),
    );
    add(
        "size of 2^63",
        base256(new().file("a", 0o644, b"x").finish(), huge()),
    );
    add(
        "pax record without length",
        new()
            .raw(b'x', b"p", b"", 0o644, b"path=../x\n")
            .file("a", 0o644, b"")
            .finish(),
    );
    add(
        "pax record too long",
        new()
            .raw(b'x', b"p", b"", 0o644, b"99 path=x\n")
            .file("a", 0o644, b"")
            .finish(),
    );
    add(
        "pax key twice",
        new()
            .pax(&[("path", b"a"), ("path", b"../b")])
            .file("c", 0o644, b"")
            .finish(),
    );
    add(
        "pax size in text",
        new().pax(&[("size", b"-1")]).file("c", 0o644, b"").finish(),
    );
    // CVE-2025-62518: one reader takes the size from PAX, the other from the header, and they see other entries.
    let hidden = new().file("../hidden", 0o644, b"x").unfinished();
    let desync = new()
        .pax(&[("size", hidden.len().to_string().as_bytes())])
        .raw_sized(b'L', b"././@LongLink", b"", 0o644, 0, &hidden);
    add(
        "pax and gnu headers mixed",
        desync.file("a", 0o644, b"").finish(),
    );
    let twice = new()
        .pax(&[("path", b"a")])
        .pax(&[("path", b"b")])
        .file("c", 0o644, b"");
    add("two pax headers", twice.finish());
    add(
        "extension header at the end",
        new().pax(&[("path", b"a")]).finish(),
    );
    add(
        "global header with a path",
        new()
            .raw(b'g', b"g", b"", 0o644, b"12 path=abc\n")
            .file("c", 0o644, b"")
            .finish(),
    );
    add(
        "extension header of 4 GiB",
        new()
            .raw_sized(b'x', b"p", b"", 0o644, 1 << 32, b"")
            .finish(),
    );
    add(
        "owner of 2^32-1",
        new()
            .pax(&[("uid", b"4294967295")])
            .file("c", 0o644, b"")
            .finish(),
    );
}

fn bombs(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    add(
        "gzip bomb",
        gzip(&new().file("zeros", 0o644, &vec![0; 16 << 20]).finish()),
    );
    add(
        "gzip bomb below the size limit",
        gzip(&new().file("zeros", 0o644, &vec![0; 4 << 20]).finish()),
    );
    add(
        "zstd bomb",
        zstd(&new().file("zeros", 0o644, &vec![0; 16 << 20]).finish()),
    );
    let many = (0..20_000).fold(new(), |tar, i| tar.file(&format!("f{i}"), 0o644, b""));
    add("20,000 empty files", many.finish());
    add(
        "zeros without end after the end",
        [new().finish(), vec![0; 9 << 20]].concat(),
    );
}

fn layers(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    add(
        "whiteout of the parent",
        new().file("a/.wh...", 0o644, b"").finish(),
    );
    add(
        "whiteout of nothing",
        new().file("a/.wh.", 0o644, b"").finish(),
    );
    add(
        "whiteout of dot",
        new().file("a/.wh..", 0o644, b"").finish(),
    );
    add("dev as a link", new().symlink("dev", "/host").finish());
    add(
        "proc as a relative link",
        new().symlink("./proc", "../../tmp").finish(),
    );
    add("sys as a file", new().file("sys", 0o644, b"").finish());
    let opaque: &[(&str, &[u8])] = &[("SCHILY.xattr.trusted.overlay.opaque", b"y")];
    add(
        "overlay attribute",
        new().pax(opaque).file("a", 0o644, b"").finish(),
    );
    let redirect: &[(&str, &[u8])] = &[("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc")];
    add(
        "overlay redirect",
        new().pax(redirect).dir("a", 0o755).finish(),
    );
}

fn tricky(add: &mut impl FnMut(&'static str, Vec<u8>)) {
    add("nothing in it", new().finish());
    add(
        "absolute name",
        new().file("/inside/file", 0o644, b"x").finish(),
    );
    let as_directory =
        new()
            .dir("real", 0o755)
            .symlink("link", "/real")
            .file("link/file", 0o644, b"x");
    add(
        "absolute symlink used as a directory",
        as_directory.finish(),
    );
    let climbing =
        new()
            .symlink("up", "../../../../../../tmp")
            .file("up/portlayer-escape", 0o644, b"x");
    add(
        "write through a climbing symlink",
        new().dir("tmp", 0o1777).finish_with(climbing),
    );
    let chained = new()
        .dir("t", 0o755)
        .symlink("a", "/t")
        .symlink("b", "a")
        .symlink("c", "b")
        .file("c/f", 0o644, b"x");
    add("write through chained symlinks", chained.finish());
    add(
        "symlink replaced by a file",
        new()
            .symlink("x", "/etc/passwd")
            .file("x", 0o644, b"x")
            .finish(),
    );
    add(
        "symlink replaced by a directory",
        new().symlink("x", "/etc").dir("x", 0o700).finish(),
    );
    let links = new()
        .file("a", 0o644, b"data")
        .hardlink("b", "a")
        .hardlink("c", "/b")
        .file("a", 0o600, b"new");
    add("hard links and a replaced original", links.finish());
    add(
        "hard link to a symlink",
        new()
            .symlink("s", "/etc/passwd")
            .hardlink("h", "s")
            .finish(),
    );
    add(
        "names to scare a terminal",
        new().file("a\n\x1b[2J\\b", 0o644, b"x").finish(),
    );
    add(
        "the same name twice",
        new().file("a", 0o644, b"1").file("a", 0o644, b"2").finish(),
    );
    add(
        "the root without any rights",
        new().dir("./", 0).file("a", 0o644, b"x").finish(),
    );
    add("setuid file", new().file("su", 0o4755, b"x").finish());
    let capability: &[(&str, &[u8])] = &[(
        "SCHILY.xattr.security.capability",
        b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    )];
    add(
        "file with a capability",
        new().pax(capability).file("ping", 0o755, b"x").finish(),
    );
    add(
        "long names",
        new()
            .entry(EntryKind::File, &long("d/"), b"", 0o644, b"x")
            .finish(),
    );
    add(
        "pax long name",
        new()
            .pax(&[("path", &long("d/"))])
            .file("x", 0o644, b"x")
            .finish(),
    );
    add(
        "archive inside",
        new()
            .file("inner.tar", 0o644, &new().file("../x", 0o644, b"").finish())
            .finish(),
    );
    add(
        "global header with a comment",
        new()
            .raw(b'g', b"g", b"", 0o644, b"14 comment=ab\n")
            .dir("d", 0o755)
            .finish(),
    );
    add("gzip", gzip(&new().file("a", 0o644, &noise(5000)).finish()));
    add("gzip in two members", {
        let tar = new().file("a", 0o644, &noise(5000)).finish();
        [gzip(&tar[..1000]), gzip(&tar[1000..])].concat()
    });
    add("zstd", zstd(&new().file("a", 0o644, &noise(5000)).finish()));
}

impl TarBuilder {
    fn finish_with(self, more: TarBuilder) -> Vec<u8> {
        [self.unfinished(), more.finish()].concat()
    }
}

fn long(start: &str) -> Vec<u8> {
    [start.as_bytes(), &b"long/".repeat(30), b"name"].concat()
}

/// Bytes that do not compress, the same every time.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn damaged(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    for byte in bytes.iter_mut().skip(at).take(40) {
        *byte ^= 0x55;
    }
    bytes
}

fn huge() -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4] = 0x80;
    field
}

/// Replaces the first header's size field and corrects the checksum.
fn base256(mut tar: Vec<u8>, field: [u8; 12]) -> Vec<u8> {
    tar[124..136].copy_from_slice(&field);
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar[..512].iter().map(|b| u32::from(*b)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("a Vec takes every write")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("a Vec takes every write")
}

#[cfg(test)]
mod tests;
