//! Loads rules: one text is one transaction, all of it or nothing.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Why rules were not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// It cannot be started.
    #[error("cannot run nft (Debian package nftables)")]
    Program(#[source] io::Error),
    /// It refused the text; nothing of it holds.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// Where it is looked for besides PATH, which may lack the directories of the administrator.
const PLACES: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];

fn command() -> Command {
    let found = PLACES
        .iter()
        .find(|path| std::path::Path::new(path).exists());
    let mut command = Command::new(found.unwrap_or(&"nft"));
    // Nothing of our environment is its business, and its texts must be the known ones.
    command.env_clear().env("LC_ALL", "C");
    command
}

/// Loads a text in the network namespace of the calling thread. Blocks.
pub(crate) fn load(text: &str) -> Result<(), NftError> {
    let mut child = command()
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Program)?;
    // It reads everything before it says anything, so this cannot wait for that.
    let written = match child.stdin.take() {
        Some(mut input) => input.write_all(text.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(NftError::Program)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(NftError::Refused(said.chars().take(2000).collect()));
    }
    written.map_err(NftError::Program)
}

/// The chains of a table in the network namespace of the calling thread; `None` = there is no such table. Blocks.
pub(crate) fn chains(table: &str) -> Result<Option<Vec<String>>, NftError> {
    let output = command()
        .args(["-j", "list", "chains", "inet"])
        .output()
        .map_err(NftError::Program)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(NftError::Refused(said.into_owned()));
    }
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| NftError::Refused(error.to_string()))?;
    let entries = listing["nftables"].as_array().cloned().unwrap_or_default();
    let ours: Vec<String> = entries
        .iter()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["table"] == table)
        .filter_map(|chain| chain["name"].as_str().map(str::to_owned))
        .collect();
    // A table of ours is never without chains.
    Ok((!ours.is_empty()).then_some(ours))
}
