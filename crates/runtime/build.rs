//! Compiles the init of executors (`crates/init`) into one static binary that `src/init.rs` embeds.
//!
//! rustc is called directly, because a build script cannot depend on the binary of another package on stable cargo, and
//! because init must be static and small whatever the profile of this build.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("init");
    let sources = manifest.join("../init/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets it"))
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "portlayer_init",
            "-O",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "lto=fat",
            "-C",
            "codegen-units=1",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["--target", &env::var("TARGET").expect("cargo sets it")])
        .arg("-o")
        .arg(&output)
        .arg(sources.join("main.rs"))
        .status()
        .expect("rustc runs, cargo has just used it");
    assert!(status.success(), "the init of executors does not compile");
}
