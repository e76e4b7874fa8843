//! The extractor and the scan over the corpus.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::archive::{ExtractOptions, Root, check_layer_entry, extract, scan};

fn tree(path: &Path, into: &mut BTreeMap<String, (u32, u64, i64)>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        into.insert(
            entry.path().display().to_string(),
            (meta.mode(), meta.len(), meta.mtime()),
        );
        if meta.is_dir() {
            tree(&entry.path(), into);
        }
    }
}

#[test]
fn there_are_enough_hostile_archives() {
    let hostile = cases()
        .iter()
        .filter(|c| c.verdict != Verdict::Accepted)
        .count();
    assert!(hostile >= 60, "only {hostile}");
}

#[test]
fn extraction_keeps_every_verdict_and_touches_nothing_outside() {
    for case in cases() {
        let outer = tempfile::tempdir().unwrap();
        let canary = outer.path().join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "untouched").unwrap();
        let root = outer.path().join("a/b/root");
        std::fs::create_dir_all(&root).unwrap();
        let mut before = BTreeMap::new();
        tree(&canary, &mut before);
        let options = ExtractOptions {
            limits: limits(),
            keep_setid: false,
            ..ExtractOptions::default()
        };
        let result = extract(
            case.archive.as_slice(),
            &Root::open(&root).unwrap(),
            &options,
        );
        match (case.verdict, &result) {
            (Verdict::Refused, Err(e)) => assert!(e.is_bad_archive(), "{}: {e:?}", case.name),
            (Verdict::Refused, Ok(got)) => panic!("{}: accepted, {got:?}", case.name),
            (_, Err(e)) => panic!("{}: refused, {e:?}", case.name),
            (_, Ok(_)) => {}
        }
        let mut after = BTreeMap::new();
        tree(&canary, &mut after);
        assert_eq!(before, after, "{}", case.name);
        let siblings: Vec<_> = std::fs::read_dir(outer.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(siblings.len(), 2, "{}: {siblings:?}", case.name);
        assert!(
            !Path::new("/tmp/portlayer-escape").exists(),
            "{}",
            case.name
        );
    }
}

#[test]
fn a_layer_scan_keeps_every_verdict() {
    let limits = limits();
    for case in cases() {
        let result = scan(case.archive.as_slice(), &limits, |e| {
            check_layer_entry(e, &limits).map(drop)
        });
        match (case.verdict, result) {
            (Verdict::Accepted, Err(e)) => panic!("{}: refused, {e:?}", case.name),
            (Verdict::Refused | Verdict::LayerRefused, Ok(_)) => {
                panic!("{}: accepted", case.name)
            }
            (Verdict::Refused | Verdict::LayerRefused, Err(e)) => {
                assert!(e.is_bad_archive(), "{}", case.name)
            }
            (Verdict::Accepted, Ok(_)) => {}
        }
    }
}
