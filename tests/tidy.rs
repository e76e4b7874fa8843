//! Architecture and house rules as tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust source of the workspace, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join("src"), root.join("crates"), root.join("tests")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(
        found.len() > 20,
        "the walk found only {} sources",
        found.len()
    );
    found
}

/// The lines of `text` that are code.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn users_of(word: &str, allowed: &[&str]) -> Vec<String> {
    sources()
        .into_iter()
        .filter(|(path, _)| {
            !allowed.iter().any(|prefix| path.starts_with(prefix)) && !path.ends_with("tidy.rs")
        })
        .filter(|(_, text)| code(text).any(|line| line.contains(word)))
        .map(|(path, _)| path.display().to_string())
        .collect()
}

#[test]
fn only_the_ledger_names_sled() {
    assert_eq!(
        users_of("sled::", &["crates/portlayer/src/ledger"]),
        Vec::<String>::new()
    );
}

#[test]
fn only_the_runtime_and_the_benchmark_speak_to_containerd() {
    assert_eq!(
        users_of("containerd_client", &["crates/runtime", "crates/bench"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_core_knows_no_wire_and_no_command_line() {
    let core = fs::read_to_string("crates/portlayer/Cargo.toml").unwrap();
    for dependency in ["tonic", "containerd-client", "clap", "anyhow"] {
        assert!(
            !core.contains(dependency),
            "crates/portlayer depends on {dependency}"
        );
    }
}

#[test]
fn no_module_is_a_drawer_for_odds_and_ends() {
    let names = [
        "util.rs",
        "utils.rs",
        "common.rs",
        "helper.rs",
        "helpers.rs",
        "manager.rs",
    ];
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| names.iter().any(|n| path.ends_with(n)))
        .collect();
    assert!(
        found.is_empty(),
        "{:?}",
        found.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
}

/// Tables of cases may be longer than code that someone has to follow.
#[test]
fn no_file_is_longer_than_600_lines_and_no_test_longer_than_800() {
    let is_test = |path: &Path| {
        path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
    };
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| text.lines().count() > if is_test(path) { 800 } else { 600 })
        .map(|(path, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

/// A point that is in no table is never tried; one that is in no code is tried for nothing.
#[test]
fn every_crash_point_is_in_the_table_and_once_in_the_code() {
    let call = concat!("crash", "::point(\"");
    let mut used: Vec<String> = sources()
        .into_iter()
        .flat_map(|(_, text)| {
            let rests = text.split(call).skip(1);
            let names = rests.filter_map(|rest| rest.split('"').next());
            names.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    used.sort_unstable();
    let mut table: Vec<_> = portlayer::crash::POINTS.to_vec();
    table.sort_unstable();
    assert_eq!(used, table);
}

/// What the ledger frees after each group is in the crossbeam-epoch that sled uses: a second version would free nothing.
#[test]
fn there_is_one_epoch() {
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    assert_eq!(lock.matches("name = \"crossbeam-epoch\"\n").count(), 1);
}

/// What readers see first is a program that a test runs.
#[test]
fn the_scheduler_of_the_readme_is_the_example() {
    let readme = fs::read_to_string("README.md").unwrap();
    let program = fs::read_to_string("docs/examples/scheduler.rs").unwrap();
    assert!(readme.contains(&format!("```rust\n{program}```\n")));
    let (_, body) = program.split_once("async fn main()").unwrap();
    // Without the line that begins it and the brace that ends it.
    let lines = body.lines().count() - 2;
    assert!(lines <= 30, "the scheduler has {lines} lines");
}

#[test]
fn every_document_of_the_readme_exists() {
    let readme = fs::read_to_string("README.md").unwrap();
    let links: Vec<&str> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|l| !l.contains("://"))
        .collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(
            Path::new(link).exists(),
            "README.md links to {link}, which does not exist"
        );
    }
}
