//! Targets of fuzzing: each takes bytes from anybody, and panics when something does not hold.
//!
//! `./dev fuzz TARGET` runs one under libFuzzer (`fuzz/` here); `tests/slice.rs` runs all of them a little on every change.

mod documents;
#[path = "../../../src/cli/output/escape.rs"]
#[allow(dead_code, reason = "the command uses all of it")]
mod escape;

use std::io::Cursor;

use portlayer::archive::{Limits, TarReader, check_layer_entry, tar_of_zip, zip_of_tar};
use portlayer::compose::Handle;
use portlayer::element::ElementId;
use portlayer::event::Event;
use portlayer::filter::{ElementField, EventField, Filter};
use portlayer::network::{EgressRule, Icmp, Protocol, compile};
use portlayer_taskdef::diego;

pub use documents::oci;

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 12] = [
    ("id", id),
    ("filter", filter),
    ("handle", handle),
    ("record", record),
    ("tar", tar),
    ("zip", zip),
    ("egress", egress),
    ("oci", oci),
    ("url", url),
    ("escape", escape),
    ("diego_json", diego_json),
    ("diego_proto", diego_proto),
];

/// Bounds small enough that a run is short, large enough that every branch is reached.
fn limits() -> Limits {
    Limits {
        bytes: 1 << 20,
        entries: 200,
        ratio: 100,
        ratio_floor: 64 << 10,
        ..Limits::default()
    }
}

/// Ids: what is taken has one text, and it is the one that was given.
pub fn id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<ElementId>() {
        Ok(id) => {
            assert_eq!(id.as_str(), text);
            assert_eq!(id.to_url().as_str(), text);
            let again = ElementId::new(id.kind(), id.location(), id.name());
            assert_eq!(again.as_ref(), Ok(&id));
            assert!(!text.contains("..") || !text.split('/').any(|part| part == ".."));
            assert_eq!(id.digest_hex().len(), 64);
        }
        Err(error) => assert!(error.to_string().len() < 8192),
    }
}

/// Filters of elements and events.
pub fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(filter) = Filter::<ElementField>::parse(&[text]) {
        filter.selects(|_| vec![b"image://images/a".to_vec(), Vec::new(), vec![0xff; 40]]);
    }
    if let Ok(filter) = Filter::<EventField>::parse(&[text]) {
        filter.selects(|_| vec![b"created".to_vec()]);
    }
}

/// Handles that callers give back: what is taken is the same when it is written again.
pub fn handle(bytes: &[u8]) {
    if let Ok(handle) = Handle::from_token(bytes) {
        let token = handle.to_token();
        match Handle::from_token(&token) {
            Ok(again) => assert_eq!(again.to_token(), token),
            Err(error) => panic!("its own token is refused: {error}"),
        }
    }
}

/// Stored values, as read back from the disk: records and events. The sum is made right, or nothing behind it would be tried.
pub fn record(bytes: &[u8]) {
    portlayer::fuzz::record(bytes);
    // Events go to callers as JSON and come back.
    if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
        assert!(serde_json::to_vec(&event).is_ok());
    }
}

/// Tars, compressed or not.
pub fn tar(bytes: &[u8]) {
    let limits = limits();
    let Ok(mut reader) = TarReader::new(bytes, limits) else {
        return;
    };
    let mut buffer = [0; 4096];
    let mut entries = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        entries += 1;
        if let Ok(name) = check_layer_entry(&entry, &limits) {
            assert!(name.components().iter().all(|part| {
                !part.is_empty()
                    && part != b".."
                    && part != b"."
                    && !part.contains(&b'/')
                    && !part.contains(&0)
            }));
        }
        // Only some of the data, so that skipping is tried too.
        if entries % 2 == 0 && reader.read(&mut buffer).is_err() {
            break;
        }
    }
    assert!(entries <= limits.entries);
    // Written as a zip, what was taken is a zip that is read again, whatever its names are then judged to be.
    if let Ok(zipped) = zip_of_tar(bytes, Vec::new(), &limits) {
        let roomy = Limits {
            bytes: u64::MAX,
            entries: u64::MAX,
            ratio: u64::MAX,
            ..limits
        };
        if let Err(error) = tar_of_zip(Cursor::new(zipped), &mut std::io::sink(), &roomy) {
            panic!("a zip of our own is refused: {error}");
        }
    }
    assert!(reader.decoder().bytes_out() <= limits.bytes + (128 << 10));
}

/// Zips: what comes out is a tar that our own reader takes, or refuses for its names alone.
pub fn zip(bytes: &[u8]) {
    let limits = limits();
    let mut out = Vec::new();
    if tar_of_zip(Cursor::new(bytes), &mut out, &limits).is_err() {
        return;
    }
    let roomy = Limits {
        bytes: u64::MAX,
        ..limits
    };
    let mut reader = match TarReader::new(out.as_slice(), roomy) {
        Ok(reader) => reader,
        Err(error) => panic!("no reader: {error}"),
    };
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => panic!("a tar of our own is refused: {error}"),
        }
    }
}

/// Egress rules: `protocol destinations ports`, a line each; what is compiled is sorted and apart.
pub fn egress(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let list = |words: Option<&str>| -> Vec<String> {
        let words = words.unwrap_or_default().split(',');
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let rules: Vec<EgressRule> = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let (protocol, icmp) = match words.next().unwrap_or_default() {
                "udp" => (Protocol::Udp, None),
                "icmp" => (Protocol::Icmp, None),
                "icmp8" => (
                    Protocol::Icmp,
                    Some(Icmp {
                        kind: Some(8),
                        code: Some(0),
                    }),
                ),
                "icmpv6" => (Protocol::Icmpv6, None),
                "all" => (Protocol::All, None),
                _ => (Protocol::Tcp, None),
            };
            EgressRule {
                protocol,
                destinations: list(words.next()),
                ports: list(words.next()),
                icmp,
                log: line.ends_with('!'),
            }
        })
        .collect();
    let Ok(allowed) = compile("egress", &rules) else {
        return;
    };
    for allow in allowed {
        assert!(allow.v4.iter().all(|(from, to)| from <= to));
        assert!(allow.v6.iter().all(|(from, to)| from <= to));
        assert!(allow.v4.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!(allow.v6.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}

/// References of images in registries, the URLs we are given.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(reference) = text.parse::<portlayer_registry::Reference>() {
        assert_eq!(reference.to_string(), text);
        assert!(
            !reference
                .repository()
                .split('/')
                .any(|part| part.is_empty() || part == "..")
        );
        assert!(!reference.host().contains(['@', '/', '?', '#', '\\']));
    }
}

/// Text for a terminal: one line, nothing that acts, and JSON that still says the same.
pub fn escape(bytes: &[u8]) {
    let shown = escape::escape(bytes);
    assert!(!shown.chars().any(escape::is_active));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(!escape::escape_message(text).chars().any(escape::is_active));
    if let Ok(json) = serde_json::to_string(text) {
        let safe = escape::escape_json(&json);
        assert!(!safe.chars().any(|c| c != '\n' && escape::is_active(c)));
        assert_eq!(
            serde_json::from_str::<String>(&safe).ok().as_deref(),
            Some(text)
        );
    }
}

/// Diego's definitions as JSON.
pub fn diego_json(bytes: &[u8]) {
    if let Ok(parsed) = diego::from_json(bytes) {
        let rules = diego::Rules { strict: true };
        if let Err(invalid) = diego::validate(&parsed.desired, &rules) {
            assert!(!invalid.problems.is_empty());
        }
    }
}

/// Diego's definitions as protocol buffers.
pub fn diego_proto(bytes: &[u8]) {
    if let Ok(desired) = diego::desire_from_protobuf(bytes) {
        let _ = diego::validate(&desired, &diego::Rules::default());
    }
    let _ = diego::definition_from_protobuf(bytes);
}
