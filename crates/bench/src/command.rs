//! Running a program that has to succeed.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Runs it to its end without input and returns its standard output. Errors: it cannot be started or does not
/// return 0, with what it wrote to standard error.
pub(crate) async fn succeed(mut command: Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
    ensure!(
        output.status.success(),
        "{:?}: {}: {}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
