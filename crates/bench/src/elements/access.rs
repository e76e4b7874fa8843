//! Reads and pages, by how many elements the ledger holds.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use portlayer::PortLayer;
use portlayer::element::ListQuery;

use super::write::{Write, all};
use super::{Extent, PER_PREFIX, id, open, probe};
use crate::report::{Group, Unit};
use crate::sample::{micros, quantile};

/// Elements per page.
const PAGE: usize = 100;
/// Passes one element in ten.
const FILTER: &str = "kind==task,labels.team==a";
/// Writers while filling.
const FILLERS: usize = 64;

/// Fills one ledger to each size in turn and measures there.
pub(super) async fn by_size(directory: &Path, extent: Extent) -> Result<Vec<Group>> {
    let mut access = Group::new(
        "element_access",
        "Reads and pages in process, by elements in the ledger",
        Unit::Micros,
        format!("random elements; pages of {PAGE}; the filter passes one element in ten"),
    );
    let mut opening = Group::new(
        "element_open",
        "Opening the port layer in a fresh process, by elements in the ledger",
        Unit::Millis,
        "",
    );
    let mut memory = Group::new(
        "element_memory",
        "Idle memory of a fresh process, by elements in the ledger",
        Unit::MiB,
        "resident, one second after opening",
    );
    let mut held = 0;
    for &size in extent.sizes {
        let opened = open(directory).await?;
        let layer = &opened.layer;
        let ids = (held..size).map(id).collect::<Result<_>>()?;
        all(layer, ids, FILLERS, Write::Create).await?;
        held = size;
        reads(layer, size, extent.reads, &mut access).await?;
        pages(layer, size, extent.reads.div_ceil(50), &mut access).await?;
        opened.close().await?;
        let opened = probe::open_elsewhere(directory).await?;
        opening.push_single(format!("open @{size}"), opened.open_ms);
        memory.push_single(format!("idle @{size}"), opened.resident_mib);
    }
    Ok(vec![access, opening, memory])
}

async fn reads(layer: &PortLayer, size: u64, reads: u64, group: &mut Group) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..reads {
        let id = id(fastrand::u64(0..size))?;
        let start = Instant::now();
        let descriptor = layer.read(&id).await?;
        samples.push(micros(start.elapsed()));
        ensure!(descriptor.id == id, "asked for {id}, got {}", descriptor.id);
    }
    group.push(format!("read @{size}"), &samples)?;
    samples.sort_by(f64::total_cmp);
    if let Some(p99) = quantile(&samples, 99) {
        group.push_single(format!("read, 99th percentile @{size}"), p99);
    }
    Ok(())
}

async fn pages(layer: &PortLayer, size: u64, pages: u64, group: &mut Group) -> Result<()> {
    let all = ListQuery::default();
    let mut by_prefix = Vec::new();
    let mut by_filter = Vec::new();
    for _ in 0..pages {
        let prefix = id(fastrand::u64(0..size) / PER_PREFIX * PER_PREFIX)?;
        let prefix = prefix.as_str().trim_end_matches("n000").to_owned();
        let query = ListQuery {
            prefix: Some(prefix),
            ..all.clone()
        };
        by_prefix.push(page(layer, query).await?);
        by_filter.push(page(layer, ListQuery::filter(FILTER)).await?);
    }
    group.push(format!("page under a prefix @{size}"), &by_prefix)?;
    group.push(format!("page by filter @{size}"), &by_filter)
}

/// Microseconds for one full page.
async fn page(layer: &PortLayer, mut query: ListQuery) -> Result<f64> {
    query.limit = PAGE;
    let start = Instant::now();
    let page = layer.list(query).await?;
    let took = micros(start.elapsed());
    ensure!(
        page.items.len() == PAGE,
        "a page of {} elements",
        page.items.len()
    );
    Ok(took)
}
