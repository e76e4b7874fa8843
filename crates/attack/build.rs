//! Compiles the program that attacks from inside (`inside/main.rs`) into one static binary, as the init of executors is made.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("inside");
    let source = manifest.join("inside/main.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets it"))
        .args(["--edition", "2024", "--crate-name", "inside", "-O"])
        .args(["-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static"])
        .args(["--target", &env::var("TARGET").expect("cargo sets it")])
        .arg("-o")
        .arg(&output)
        .arg(source)
        .status()
        .expect("rustc runs, cargo has just used it");
    assert!(status.success(), "the attack from inside does not compile");
}
