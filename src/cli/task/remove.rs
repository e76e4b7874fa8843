//! Removing an executor that may still run.

use portlayer::compose::Interrupt;
use portlayer::element::ElementId;
use portlayer_client::Client;

use crate::cli::failure::Failure;

/// Removes an executor; one that runs is stopped in stages first. Whether it was there.
pub(crate) async fn executor(client: &Client, id: &ElementId) -> Result<bool, Failure> {
    match client.delete(id).await {
        Ok(()) => return Ok(true),
        Err(error) if error.reason() == "not_found" => return Ok(false),
        Err(error) if error.reason() == "invalid_state" => {}
        Err(error) => return Err(error.into()),
    }
    client.interrupt(id, None, Interrupt::Resume).await?;
    client
        .interrupt(id, None, Interrupt::Stop { how: None })
        .await?;
    for task in super::tasks(client, id).await? {
        match client.wait(id, &task, None).await {
            Ok(_) => {}
            Err(error) if error.reason() == "never_started" => {}
            Err(error) => return Err(error.into()),
        }
    }
    client.delete(id).await?;
    Ok(true)
}
