//! The sweep: removes bytes without a record, which a crash between a put and its record leaves behind.

use std::collections::HashSet;
use std::time::Duration;

use super::Kind;
use crate::PortLayer;
use crate::ledger::LedgerError;
use crate::store::{Location, Store, StoreError};

/// How long the sweep of one location may hold up an open; the rest is done by the next sweep.
const AT_OPEN: Duration = Duration::from_secs(30);
/// Records read at once.
const PAGE: usize = 1000;

/// What a sweep did in one location.
#[derive(Debug)]
pub struct Swept {
    /// The location.
    pub location: String,
    /// `digest_hex` of the ids whose bytes were removed.
    pub removed: Vec<String>,
    /// What went wrong; the rest stays for the next sweep.
    pub error: Option<StoreError>,
}

impl PortLayer {
    /// Removes the bytes no record owns, in every location that can be used. Idempotent and safe at any time: what
    /// is being created or deleted is left alone. Error: the ledger cannot be read, then nothing is removed.
    pub async fn sweep(&self) -> Result<Vec<Swept>, LedgerError> {
        let mut report = Vec::new();
        for location in self.shared.locations.values() {
            if self.shared.health.check(&location.name).is_ok()
                && let Some(swept) = self.sweep_location(location).await?
            {
                report.push(swept);
            }
        }
        Ok(report)
    }

    /// The sweep of every location after an open.
    pub(crate) async fn sweep_stores(&self) {
        for location in self.shared.locations.values() {
            if self.shared.health.check(&location.name).is_err() {
                continue;
            }
            let name = &location.name;
            match tokio::time::timeout(AT_OPEN, self.sweep_location(location)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(swept))) => {
                    if !swept.removed.is_empty() {
                        tracing::info!(%name, count = swept.removed.len(), "removed bytes without a record");
                    }
                    if let Some(error) = swept.error {
                        tracing::warn!(%name, %error, "the sweep is incomplete");
                    }
                }
                Ok(Err(error)) => tracing::warn!(%name, %error, "the sweep is incomplete"),
                Err(_) => tracing::warn!(%name, "the sweep took too long and goes on later"),
            }
        }
    }

    async fn sweep_location(&self, location: &Location) -> Result<Option<Swept>, LedgerError> {
        let Some(store) = &location.store else {
            return Ok(None);
        };
        let mut swept = Swept {
            location: location.name.clone(),
            removed: Vec::new(),
            error: None,
        };
        if let Err(error) = self.sweep_store(store.as_ref(), &mut swept.removed).await? {
            swept.error = Some(error);
        }
        Ok(Some(swept))
    }

    async fn sweep_store(
        &self,
        store: &dyn Store,
        removed: &mut Vec<String>,
    ) -> Result<Result<(), StoreError>, LedgerError> {
        let listed = match store.list().await {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        if listed.is_empty() {
            return Ok(Ok(()));
        }
        let owned = self.digests().await?;
        for digest in listed.into_iter().filter(|digest| !owned.contains(digest)) {
            // Held by a create or delete: not garbage, or not for long.
            let Some(_id) = self.shared.in_flight.try_exclusive(&digest) else {
                continue;
            };
            // A create may have begun and ended since the first look. Garbage is rare, so looking twice is cheap.
            if self.digests().await?.contains(&digest) {
                continue;
            }
            if let Err(error) = store.sweep(&digest).await {
                return Ok(Err(error));
            }
            removed.push(digest);
        }
        Ok(Ok(()))
    }

    /// The digests of every image and volume with a record; damaged ones too, whose bytes must stay.
    async fn digests(&self) -> Result<HashSet<String>, LedgerError> {
        let ledger = self.shared.ledger.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut digests = HashSet::new();
            for kind in [Kind::Image, Kind::Volume] {
                let prefix = format!("{kind}://");
                let mut after: Option<String> = None;
                loop {
                    let page = ledger.list(&prefix, after.as_deref(), PAGE, |_| true)?;
                    digests.extend(page.records.iter().map(|record| record.id.digest_hex()));
                    digests.extend(page.damaged.iter().map(|id| digest_of(id)));
                    match page.next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
            }
            Ok(digests)
        });
        read.await.map_err(|_| LedgerError::Closed)?
    }
}

/// As `ElementId::digest_hex`, for an id that is only known as the key of a damaged record.
fn digest_of(id: &str) -> String {
    super::Checksum::of(id.as_bytes()).hex()
}
