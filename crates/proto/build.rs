//! Compiles `proto/portlayer/v1`. protox is a compiler in Rust: no protoc needs to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

const FILES: [&str; 7] = [
    "specs",
    "elements",
    "compositions",
    "tasks",
    "events",
    "node",
    "diego",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = FILES.map(|name| root.join(format!("portlayer/v1/{name}.proto")));
    let descriptors = protox::compile(files, [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Metadata is looked at in the order of keys.
        .btree_map(".")
        // Its own, which shows nothing, is in lib.rs.
        .skip_debug(["portlayer.v1.RegistryCredentials"])
        // Data is passed on, not copied.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
