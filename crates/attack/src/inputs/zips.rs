//! Hostile zips, most of them written field by field.

use std::os::unix::ffi::OsStrExt;

use super::archives::Hostile;
use super::sentinel::Sentinels;

/// One entry as it is written: what the local header says, and what the directory says.
#[derive(Clone)]
struct Member {
    local_name: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    mode: u32,
    packed: u32,
    size: u32,
    crc: u32,
    /// Where the directory says the local header is; its true place when `None`.
    offset: Option<u32>,
}

impl Member {
    fn stored(name: &[u8], data: &[u8]) -> Member {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        Member {
            local_name: name.to_vec(),
            name: name.to_vec(),
            data: data.to_vec(),
            method: 0,
            flags: 0,
            mode: 0o100_644,
            packed: length,
            size: length,
            crc: crc(data),
            offset: None,
        }
    }

    fn with(self, change: impl FnOnce(&mut Member)) -> Member {
        let mut member = self;
        change(&mut member);
        member
    }
}

/// CRC-32 as zips have it.
fn crc(data: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in data {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (0u32.wrapping_sub(sum & 1)));
        }
    }
    !sum
}

fn header(member: &Member, central: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    let name = match central {
        Some(_) => &member.name,
        None => &member.local_name,
    };
    let short = |n: u16| n.to_le_bytes();
    match central {
        Some(_) => {
            out.extend(b"PK\x01\x02");
            out.extend(short(0x031e));
        }
        None => out.extend(b"PK\x03\x04"),
    }
    for field in [20, member.flags, member.method, 0, 0x21] {
        out.extend(short(field));
    }
    for field in [member.crc, member.packed, member.size] {
        out.extend(field.to_le_bytes());
    }
    out.extend(short(u16::try_from(name.len()).unwrap_or(u16::MAX)));
    out.extend(short(0));
    if let Some(offset) = central {
        for field in [0u16, 0, 0] {
            out.extend(short(field));
        }
        out.extend((member.mode << 16).to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.extend(name);
    out
}

/// A zip of these members; the end record says there are `count` of them and where the directory is.
fn zip_with(
    members: &[Member],
    count: Option<u16>,
    directory: Option<u32>,
    comment: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut offsets = Vec::new();
    let at = |out: &[u8]| u32::try_from(out.len()).unwrap_or(u32::MAX);
    for member in members {
        offsets.push(at(&out));
        out.extend(header(member, None));
        out.extend(&member.data);
    }
    let start = at(&out);
    for (member, offset) in members.iter().zip(offsets) {
        out.extend(header(member, Some(member.offset.unwrap_or(offset))));
    }
    let size = at(&out) - start;
    let count = count.unwrap_or(u16::try_from(members.len()).unwrap_or(u16::MAX));
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(directory.unwrap_or(start).to_le_bytes());
    out.extend(
        u16::try_from(comment.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    out.extend(comment);
    out
}

fn zip(members: &[Member]) -> Vec<u8> {
    zip_with(members, None, None, b"")
}

/// All of them.
pub(super) fn all(sentinels: &Sentinels) -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        let name = format!("zip: {name}");
        all.push(Hostile { name, bytes });
    };
    let outside = sentinels.outside().as_os_str().as_bytes();
    let names: [(&str, Vec<u8>); 12] = [
        ("parent", b"../pl-escape".to_vec()),
        (
            "parents",
            [&b"../".repeat(24)[..], &outside[1..], b"/pl-escape"].concat(),
        ),
        ("absolute", [outside, b"/pl-escape"].concat()),
        ("back slashes", b"..\\..\\pl-escape".to_vec()),
        ("drive", b"C:\\pl-escape".to_vec()),
        ("NUL", b"ok\0/../../pl-escape".to_vec()),
        ("not utf-8", b"\xff\xfe/../pl-escape".to_vec()),
        ("empty", Vec::new()),
        ("dot", b".".to_vec()),
        ("60,000 bytes", vec![b'n'; 60_000]),
        ("deep", b"d/".repeat(500)),
        ("escape sequence", b"a\x1b[2J\r\nb".to_vec()),
    ];
    for (what, name) in names {
        add(
            &format!("name, {what}"),
            zip(&[Member::stored(&name, b"x")]),
        );
        let local = Member::stored(b"innocent", b"x").with(|m| m.local_name.clone_from(&name));
        add(&format!("local name, {what}"), zip(&[local]));
    }
    let link = |target: &[u8]| Member::stored(b"link", target).with(|m| m.mode = 0o120_777);
    add(
        "link out, then through it",
        zip(&[link(outside), Member::stored(b"link/pl-escape", b"x")]),
    );
    add(
        "link out, then over it",
        zip(&[
            link(sentinels.secret().as_os_str().as_bytes()),
            Member::stored(b"link", b"x"),
        ]),
    );
    add("link of 60,000 bytes", zip(&[link(&vec![b't'; 60_000])]));
    add("link without a target", zip(&[link(b"")]));
    for (what, kind) in [
        ("device", 0o020_666),
        ("block device", 0o060_666),
        ("fifo", 0o010_666),
        ("socket", 0o140_666),
        ("set-id", 0o104_755),
    ] {
        add(
            what,
            zip(&[Member::stored(b"node", b"").with(|m| m.mode = kind)]),
        );
    }
    let member = Member::stored(b"a", b"hello");
    let small = std::slice::from_ref(&member);
    add(
        "the same name twice",
        zip(&[member.clone(), member.clone()]),
    );
    add("encrypted", zip(&[member.clone().with(|m| m.flags = 1)]));
    add(
        "strong encryption",
        zip(&[member.clone().with(|m| m.flags = 0x41)]),
    );
    add(
        "sizes in a descriptor that is not there",
        zip(&[member
            .clone()
            .with(|m| (m.flags, m.packed, m.size) = (8, 0, 0))]),
    );
    for method in [1, 6, 9, 12, 14, 93, 95, 97, 98, 99, 0xffff] {
        add(
            &format!("method {method}"),
            zip(&[member.clone().with(|m| m.method = method)]),
        );
    }
    add(
        "stored that says deflated",
        zip(&[member.clone().with(|m| m.method = 8)]),
    );
    add(
        "size of 4 GiB",
        zip(&[member.clone().with(|m| m.size = u32::MAX - 1)]),
    );
    add(
        "packed size of 4 GiB",
        zip(&[member.clone().with(|m| m.packed = u32::MAX - 1)]),
    );
    add(
        "both beyond 4 GiB without zip64",
        zip(&[member
            .clone()
            .with(|m| (m.size, m.packed) = (u32::MAX, u32::MAX))]),
    );
    add("wrong sum", zip(&[member.clone().with(|m| m.crc = 1)]));
    add(
        "header before the beginning",
        zip(&[member.clone().with(|m| m.offset = Some(u32::MAX))]),
    );
    add(
        "header inside another",
        zip(&[member.clone(), member.clone().with(|m| m.offset = Some(3))]),
    );
    let overlapping: Vec<_> = (0..1000)
        .map(|at| {
            Member::stored(format!("f{at}").as_bytes(), b"")
                .with(|m| (m.offset, m.local_name) = (Some(0), b"f0".to_vec()))
        })
        .collect();
    add("1,000 entries on one", zip(&overlapping));
    add(
        "count of 65,535",
        zip_with(small, Some(u16::MAX), None, b""),
    );
    add("count of none", zip_with(small, Some(0), None, b""));
    add(
        "directory outside",
        zip_with(small, None, Some(u32::MAX - 1), b""),
    );
    add(
        "directory inside itself",
        zip_with(small, None, Some(0), b""),
    );
    add(
        "an end in the comment",
        zip_with(
            small,
            None,
            None,
            &zip(&[Member::stored(b"../pl-escape", b"x")]),
        ),
    );
    let plain = zip(small);
    add(
        "rubbish before",
        [&b"#!/bin/sh\nexit 1\n"[..], &plain].concat(),
    );
    add("rubbish after", [&plain[..], &[0x41; 70_000]].concat());
    add(
        "two in a row",
        [plain.clone(), zip(&[Member::stored(b"../pl-escape", b"x")])].concat(),
    );
    for cut in [1, 10, 22, 40, plain.len() - 30] {
        add(
            &format!("cut by {cut}"),
            plain[..plain.len() - cut].to_vec(),
        );
    }
    for at in [0, 8, 30, plain.len() - 40, plain.len() - 6] {
        let mut damaged = plain.clone();
        damaged[at] ^= 0xff;
        add(&format!("damaged at {at}"), damaged);
    }
    let many: Vec<_> = (0..3000)
        .map(|at| Member::stored(format!("{at}").as_bytes(), b""))
        .collect();
    add("3,000 entries", zip(&many));
    add("bomb", bomb(12 << 20));
    add("bomb below the size", bomb(4 << 20));
    all
}

/// Zeros, deflated.
fn bomb(bytes: usize) -> Vec<u8> {
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::Write;
    let zeros = vec![0; bytes];
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let packed = encoder
        .write_all(&zeros)
        .and_then(|()| encoder.finish())
        .expect("a Vec takes every write");
    let length = u32::try_from(packed.len()).unwrap_or(u32::MAX);
    let size = u32::try_from(bytes).unwrap_or(u32::MAX);
    let sum = crc(&zeros);
    zip(&[Member::stored(b"zeros", &packed)
        .with(|m| (m.method, m.packed, m.size, m.crc) = (8, length, size, sum))])
}
