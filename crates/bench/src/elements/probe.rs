//! Open time and idle memory, seen in a fresh process that does nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::command::succeed;
use crate::machine::resident_mib;
use crate::sample::millis;

/// The hidden command by which this program starts itself.
pub(crate) const COMMAND: &str = "probe-open";

/// What the fresh process says, as one line of JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) open_ms: f64,
    pub(crate) resident_mib: f64,
}

/// Opens the port layer over the ledger in `directory` and stays idle for a moment. To be called in a process of
/// its own.
pub(crate) async fn open_here(directory: &Path) -> Result<Opened> {
    let opened = super::open(directory).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = Opened {
        open_ms: millis(opened.took),
        resident_mib: resident_mib()?,
    };
    opened.close().await?;
    Ok(said)
}

/// Does that in a process of its own.
pub(super) async fn open_elsewhere(directory: &Path) -> Result<Opened> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).arg(directory);
    let output = succeed(command).await?;
    serde_json::from_slice(&output).context("the probe's answer is no JSON")
}
