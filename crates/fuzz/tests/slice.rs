//! Every target over its kept corpus and over mutations of it: no coverage to guide it, but on every change.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use portlayer::archive::{TarBuilder, corpus};
use portlayer_fuzz::TARGETS;

/// Runs of each target beside its corpus.
const RUNS: usize = 5_000;
/// Longer inputs only take longer.
const LONGEST: usize = 16 << 10;

/// What to begin with: something valid of each kind.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "id" => texts(&[
            "image://images/a/b",
            "executor://x/jobs/build_1",
            "volume://v/../x",
        ]),
        "filter" => texts(&[
            "id==image://a/b",
            "rw.\"a b\"~=\"^x.*\",kind!=task",
            "kind==image",
        ]),
        "url" => texts(&["registry.test:5000/a/b:latest", "registry.test/x@sha256:00"]),
        "egress" => texts(&[
            "tcp 10.0.0.0/8,192.0.2.1-192.0.2.9 80,443,8000-8100",
            "icmp8 198.51.100.0/24\nall 2001:db8::/32 !",
        ]),
        "escape" => texts(&["a\x1b[2Jb", "\u{202e}x\n\t\\", "plain"]),
        "diego_json" => texts(&[
            r#"{"task_guid":"g","domain":"d","task_definition":{"root_fs":"preloaded:x","action":{"run":{"path":"/bin/sh","args":["-c","true"],"user":"vcap"}},"memory_mb":256,"disk_mb":1024,"log_guid":"l"}}"#,
        ]),
        "diego_proto" => vec![
            vec![0x0a, 1, b'a', 0x12, 1, b'b', 0x1a, 2, 8, 1],
            Vec::new(),
        ],
        "tar" => corpus::cases()
            .into_iter()
            .map(|case| case.archive)
            .filter(|bytes| bytes.len() <= LONGEST)
            .collect(),
        "zip" => {
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            let options = zip::write::SimpleFileOptions::default();
            zip.add_directory("d/", options).unwrap();
            zip.start_file("d/f", options).unwrap();
            zip.write_all(b"hello hello hello hello").unwrap();
            zip.add_symlink("l", "d/f", options).unwrap();
            vec![zip.finish().unwrap().into_inner()]
        }
        "handle" | "record" | "oci" => vec![
            (0..=255).collect(),
            TarBuilder::new().file("a", 0o644, b"x").finish(),
            portlayer_fuzz_seed(target),
        ],
        _ => panic!("no seeds of {target}"),
    }
}

/// Something with structure for the targets that read our own encodings.
fn portlayer_fuzz_seed(target: &str) -> Vec<u8> {
    match target {
        "oci" => b"\x7f\x04host\x00\x10\x02\x20\x01\x05/bin/sh\x02-c\x04true".to_vec(),
        _ => b"\x01\x18executor://executors/demo\x01\x00\x02\x10image://images/a".to_vec(),
    }
}

/// What libFuzzer found to reach something new, packed.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(format!("{target}.tar.gz"));
    let packed = File::open(&packed).unwrap_or_else(|error| panic!("{packed:?}: {error}"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let inputs = archive.entries().unwrap().filter_map(|entry| {
        let mut entry = entry.unwrap();
        let mut input = Vec::new();
        entry.read_to_end(&mut input).unwrap();
        entry.header().entry_type().is_file().then_some(input)
    });
    inputs.collect()
}

fn mutate(random: &mut fastrand::Rng, from: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = from[random.usize(..from.len())].clone();
    for _ in 0..=random.usize(..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.insert(at, random.u8(..)),
            3 if at < bytes.len() => {
                drop(bytes.drain(at..(at + random.usize(..16)).min(bytes.len())))
            }
            4 => {
                let other = &from[random.usize(..from.len())];
                let start = random.usize(..=other.len());
                let end = (start + random.usize(..64)).min(other.len());
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            _ => bytes.extend([0, 0xff, 0x7f, 0x80].map(|byte| byte ^ random.u8(..2))),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

#[test]
fn every_target_holds_over_its_corpus_and_mutations_of_it() {
    for (name, target) in TARGETS {
        let mut inputs = kept(name);
        inputs.extend(seeds(name));
        for input in &inputs {
            target(input);
        }
        // The same every time: a failure can be repeated.
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..RUNS {
            let input = mutate(&mut random, &inputs);
            let shown = portlayer::archive::shown(&input);
            let held = std::panic::catch_unwind(|| target(&input));
            assert!(
                held.is_ok(),
                "{name} fell over {} bytes: {shown}",
                input.len()
            );
        }
    }
}
