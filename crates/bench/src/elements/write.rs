//! Writes that are durable before they are answered, by how many write at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use portlayer::PortLayer;
use portlayer::element::{ElementId, Kind};
use tokio::task::JoinSet;

use super::{Extent, LOCATION, element, open};
use crate::report::{Group, Unit};

/// Writers at once.
const WRITERS: [usize; 4] = [1, 4, 16, 64];

/// Creates and updates per second. Group commit is what makes many writers faster than one.
pub(super) async fn rates(directory: &Path, extent: Extent) -> Result<Group> {
    let opened = open(directory).await?;
    let layer = &opened.layer;
    let mut group = Group::new(
        "element_writes",
        "Durable writes per second, by writers at once",
        Unit::PerSecond,
        format!(
            "median of {} rounds of {} writes",
            extent.rounds, extent.creates
        ),
    );
    let mut creates = vec![Vec::new(); WRITERS.len()];
    let mut updates = vec![Vec::new(); WRITERS.len()];
    for round in 0..extent.rounds {
        let mut order: Vec<usize> = (0..WRITERS.len()).collect();
        fastrand::shuffle(&mut order);
        for at in order {
            let writers = WRITERS[at];
            let ids: Vec<ElementId> = (0..extent.creates)
                .map(|n| ElementId::new(Kind::Task, LOCATION, &format!("r{round}/w{writers}/n{n}")))
                .collect::<Result<_, _>>()?;
            let took = all(layer, ids.clone(), writers, Write::Create).await?;
            creates[at].push(per_second(extent.creates, took)?);
            let took = all(layer, ids, writers, Write::Update).await?;
            updates[at].push(per_second(extent.creates, took)?);
        }
    }
    opened.close().await?;
    for (what, rates) in [("create", creates), ("update", updates)] {
        for (writers, rates) in WRITERS.iter().zip(rates) {
            group.push(format!("{what} @{writers}"), &rates)?;
        }
    }
    Ok(group)
}

/// What a writer does with an element.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    Create,
    Update,
}

/// Writes all `ids`, `writers` at once, each waiting for its answer before it takes the next.
pub(super) async fn all(
    layer: &PortLayer,
    ids: Vec<ElementId>,
    writers: usize,
    write: Write,
) -> Result<Duration> {
    let ids: Arc<[ElementId]> = ids.into();
    let next = Arc::new(AtomicU64::new(0));
    let mut set = JoinSet::new();
    let start = Instant::now();
    for _ in 0..writers {
        let (layer, ids, next) = (layer.clone(), ids.clone(), next.clone());
        set.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(id) = ids.get(usize::try_from(n)?) else {
                    return anyhow::Ok(());
                };
                match write {
                    Write::Create => {
                        layer.create(element(id.clone(), n)).await?;
                    }
                    Write::Update => {
                        let patch = [("note".to_owned(), Some(n.to_string().into_bytes()))];
                        layer.update(id, patch.into(), None).await?;
                    }
                }
            }
        });
    }
    while let Some(writer) = set.join_next().await {
        writer??;
    }
    Ok(start.elapsed())
}

fn per_second(writes: u64, took: Duration) -> Result<f64> {
    Ok(f64::from(u32::try_from(writes)?) / took.as_secs_f64())
}
