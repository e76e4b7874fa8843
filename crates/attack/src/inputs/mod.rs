//! Hostile input from every side. Each input names its class, what must hold, and what was seen.

mod archives;
mod bytes;
mod elements;
mod images;
mod inside;
mod packed;
mod paths;
mod report;
mod sentinel;
mod texts;
mod zips;

use anyhow::Result;

use report::Report;
use sentinel::Sentinels;

use crate::node::on_a_node_in;

/// Distinct inputs there must be at least (issue 4).
const LEAST: usize = 300;

/// Tries one in every `every` inputs of the large classes, all of the others. True: nothing got out, hung or panicked, and
/// what must be refused was.
pub(crate) async fn run(every: usize, verbose: bool) -> Result<bool> {
    let place = tempfile::Builder::new()
        .prefix("pl-attack-")
        .tempdir_in("/var/tmp")?;
    let sentinels = Sentinels::plant(place.path())?;
    let mut report = Report::new(sentinels, every.max(1), verbose);
    texts::ids(&mut report);
    texts::filters(&mut report);
    texts::egress(&mut report);
    texts::references(&mut report);
    texts::definitions(&mut report);
    texts::tokens(&mut report);
    let archives = archives::all(report.sentinels());
    let zips = zips::all(report.sentinels());
    bytes::extractors(&mut report, &archives, &zips)?;
    paths::collect(&mut report)?;
    on_a_node_in(&place.path().join("d"), async |layer| {
        bytes::stores(&mut report, layer, &archives).await?;
        images::trees(&mut report, layer).await?;
        images::configurations(&mut report, layer).await?;
        elements::tasks(&mut report, layer).await?;
        elements::executors(&mut report, layer).await?;
        inside::attempts(&mut report, layer).await
    })
    .await?;
    report.print();
    Ok(report.held() && (every > 1 || report.distinct() >= LEAST))
}
