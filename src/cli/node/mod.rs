//! Commands about the node as a whole: its ledger, its engine, what it is.

pub(crate) mod audit;
mod cloud_event;
pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod ledger;
pub(crate) mod verify;
pub(crate) mod version;

use portlayer::ledger::{Ledger, LedgerConfig};

use super::context::Context;
use super::failure::{Failure, refused};

/// Where the ledger is, as the node opens it.
fn ledger_config(context: &Context) -> LedgerConfig {
    let config = context.config();
    LedgerConfig {
        cache_bytes: config.ledger.cache_bytes,
        event_retention: config.ledger.event_retention,
        ..LedgerConfig::new(config.data_dir.join("ledger"))
    }
}

/// Opens only the ledger, for commands that need no engine and no daemon. Refuses when there is none, rather than make
/// an empty one.
async fn open_ledger(context: &Context) -> Result<Ledger, Failure> {
    let config = ledger_config(context);
    if !config.path.exists() {
        return Err(Failure::new(
            portlayer::error::ErrorKind::NotFound,
            anyhow::anyhow!("there is no ledger at {}", config.path.display()),
        )
        .hint("is --data-dir right? `portlayer config dump` shows where it comes from"));
    }
    let opened = tokio::task::spawn_blocking(move || Ledger::open(&config)).await;
    let opened = opened.map_err(std::io::Error::other)?;
    opened.map_err(|error| context.not_ours(refused(error)))
}
