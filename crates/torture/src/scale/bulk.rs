//! Much of something, made at once: elements past the port layer, snapshots past everything.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use portlayer::element::{Body, ElementId, Kind, Record, State};
use portlayer::ledger::{Ledger, LedgerConfig, LedgerError};
use portlayer::runtime::ContainerId;
use portlayer::time::Timestamp;
use portlayer_runtime::connection::Connection;
use portlayer_runtime::snapshot::{GC_ROOT, Snapshots};
use portlayer_runtime::{Client, SNAPSHOTTER};

use crate::place;

/// Records written in one transaction.
const BATCH: u32 = 5_000;
/// Snapshots made at once.
const AT_ONCE: usize = 8;

/// Fills the ledger of a node that was never opened: of ten elements five are tasks, four volumes and one an executor.
pub(super) fn elements(directory: &Path, count: u32) -> Result<()> {
    let data = place::data(directory);
    std::fs::create_dir_all(&data)?;
    let ledger = Ledger::open(&LedgerConfig::new(data.join("ledger")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for first in (0..count).step_by(BATCH as usize) {
        let batch = first..count.min(first + BATCH);
        let records = batch.map(record).collect::<Result<Vec<_>>>()?;
        let written =
            ledger.write(move |txn| records.iter().try_for_each(|record| txn.put(record)));
        runtime
            .block_on(written)
            .map_err(|error: LedgerError| error)?;
    }
    Ok(())
}

fn record(number: u32) -> Result<Record> {
    let (kind, location, body) = match number % 10 {
        0..=4 => (Kind::Task, "tasks", Body::Task(Box::default())),
        5..=8 => (Kind::Volume, "volumes", Body::Volume(Box::default())),
        _ => (Kind::Executor, "executors", Body::Executor(Box::default())),
    };
    let now = Timestamp::now();
    Ok(Record {
        id: ElementId::new(kind, location, &format!("bulk-{number}"))?,
        parent: None,
        owner: None,
        checksum: None,
        size: 0,
        ro: Default::default(),
        rw: [("number".to_owned(), number.to_string().into_bytes())].into(),
        revision: 1,
        created: now,
        modified: now,
        state: match kind {
            Kind::Executor => State::Created,
            _ => State::Ready,
        },
        hidden: false,
        body,
    })
}

/// Makes snapshots as containers have them, of executors that never were, in the engine of a node that is closed.
pub(super) fn snapshots(directory: &Path, count: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let node = portlayer_node::open(&place::config(directory)).await?;
        let places = node.places().clone();
        // Its containerd goes on.
        node.close().await?;
        let client = Client::new(&places.socket, &places.namespace)?;
        let connection = Connection::new(client, SNAPSHOTTER);
        let made = futures::stream::iter(0..count).map(|number| {
            let connection = &connection;
            async move {
                let executor =
                    ElementId::new(Kind::Executor, "executors", &format!("gone-{number}"))?;
                let labels = HashMap::from([(GC_ROOT.to_owned(), "leaked".to_owned())]);
                let key = ContainerId::new(&executor, 1);
                Snapshots(connection)
                    .prepare(None, key.as_str(), "", labels)
                    .await?;
                anyhow::Ok(())
            }
        });
        made.buffer_unordered(AT_ONCE).try_collect().await
    })
}

/// How many processes have this text among their arguments.
pub(super) fn waits_at(text: &str) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        // One that ends meanwhile has no arguments.
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        count += usize::from(String::from_utf8_lossy(&line).contains(text));
    }
    Ok(count)
}
