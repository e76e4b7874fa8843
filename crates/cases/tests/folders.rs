//! The cases in `tests/diego/cases`, and the shared ones where they are: the folder that `PORTLAYER_CASES` names, else
//! `../shared/cases/diego` beside the repository.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and say what it saw"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../..").canonicalize().unwrap()
}

/// Runs a folder; every case passes and every clause that fits a phrase holds.
fn run(folder: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_portlayer-cases"))
        .arg(folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{told}\n{errors}",
        folder.display()
    );
    assert!(told.contains(" passed, 0 failed"), "{told}");
}

#[test]
fn our_own() {
    let folder = repository().join("tests/diego/cases");
    assert!(std::fs::read_dir(&folder).unwrap().count() > 60);
    run(&folder);
}

#[test]
fn the_shared_ones_where_they_are() {
    let named = std::env::var_os("PORTLAYER_CASES").map(PathBuf::from);
    let beside = repository().join("../shared/cases/diego");
    match (named, beside.is_dir()) {
        (Some(named), _) => run(&named),
        (None, true) => run(&beside),
        // They are no part of the repository.
        (None, false) => println!("there are none at {}", beside.display()),
    }
}
