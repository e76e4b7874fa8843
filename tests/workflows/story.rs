//! A node for one test, and what it tells of itself - events, audit rows, holdings - as short lines that a test compares.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;

use futures::FutureExt;
use portlayer::element::{ElementId, Kind, ListQuery};
use portlayer::error::DeleteError;
use portlayer::event::{Change, Event};
use portlayer::ledger::Outcome;
use portlayer::runtime::{Finding, FindingClass};
use portlayer_node::Node;

use super::example::stage;
use crate::support::left;

/// A directory for a node. Whatever is left in it when it is dropped, a running engine included, is removed.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp")
            .unwrap();
        Self(directory.keep())
    }

    pub(super) async fn open(&self) -> Node {
        stage::open(&self.0).await.unwrap()
    }

    pub(super) fn data(&self) -> PathBuf {
        stage::data(&self.0)
    }

    /// What the NFS server exports.
    pub(super) fn exports(&self) -> PathBuf {
        self.0.join("exports")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        left::remove(self.data(), self.0.clone(), ());
    }
}

/// Runs a test on a node of its own, deletes every element and sees that nothing is left.
pub(super) async fn on_node(test: impl AsyncFnOnce(&Node, &Place)) {
    let place = Place::new();
    let node = place.open().await;
    let tested = AssertUnwindSafe(test(&node, &place)).catch_unwind().await;
    if let Err(panic) = tested {
        // What the test left running would outlive it.
        let _ = node.remove().await;
        resume_unwind(panic);
    }
    close(node).await;
}

/// Ends a test: the ledger verifies and the audit is clean, with the elements and after their deletion.
pub(super) async fn close(node: Node) {
    assert_clean(&node).await;
    delete_all(&node).await;
    assert_clean(&node).await;
    let left: Vec<_> = holdings(&node).await;
    assert!(left.is_empty(), "left behind: {left:?}");
    node.remove().await.unwrap();
}

/// Nothing is there that no element owns, and the ledger is what was written.
pub(super) async fn assert_clean(node: &Node) {
    let report = node.port_layer.audit().await.unwrap();
    let leaks: Vec<_> = report.leaks().collect();
    assert!(leaks.is_empty(), "leaked: {leaks:?}");
    let verified = node.port_layer.verify().await.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
}

/// Everything of ours in the engine and the kernel but the mount of the NFS location, which no element owns.
pub(super) async fn holdings(node: &Node) -> Vec<Finding> {
    let nfs = id("volume://nfs/_");
    let report = node.port_layer.audit().await.unwrap();
    let of_elements = report
        .found
        .into_iter()
        .filter(|audited| audited.owner.as_ref() != Some(&nfs));
    of_elements.map(|audited| audited.finding).collect()
}

/// The names of what is there of one class.
pub(super) async fn held(node: &Node, class: FindingClass) -> Vec<String> {
    let all = holdings(node).await.into_iter();
    all.filter(|finding| finding.class == class)
        .map(|finding| finding.name)
        .collect()
}

/// Deletes all elements but the built-in ones, users before what they use.
async fn delete_all(node: &Node) {
    let layer = &node.port_layer;
    let query = ListQuery {
        hidden: true,
        limit: 1000,
        ..ListQuery::default()
    };
    let page = layer.list(query).await.unwrap();
    assert!(page.next.is_none() && page.damaged.is_empty());
    let mut left: Vec<ElementId> = page.items.into_iter().map(|element| element.id).collect();
    left.retain(|id| !matches!(id.location(), "builtin" | "node"));
    left.sort_by_key(|id| id.kind() != Kind::Executor);
    while !left.is_empty() {
        let before = left.len();
        let mut kept = Vec::new();
        for id in left {
            match layer.delete(&id).await {
                // Goes in a later round, or has gone with its owner.
                Err(DeleteError::InUse { .. }) => kept.push(id),
                Ok(()) | Err(DeleteError::NotFound { .. }) => {}
                Err(error) => panic!("deleting {id}: {error:?}"),
            }
        }
        assert!(kept.len() < before, "these need each other: {kept:?}");
        left = kept;
    }
}

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

/// All events so far as lines, with the task's exit where there is one.
pub(super) async fn events(node: &Node) -> Vec<String> {
    let events = node.port_layer.events(1, usize::MAX).await.unwrap();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.sequence, at as u64 + 1, "the sequence has no holes");
    }
    events
        .iter()
        .filter(|event| !is_scenery(event))
        .map(line)
        .collect()
}

/// The creation of built-in elements, and the health of the location that is always away.
fn is_scenery(event: &Event) -> bool {
    let built_in = matches!(event.id.location(), "builtin" | "node");
    (built_in && event.change == Change::Created) || event.id.location() == "away"
}

fn line(event: &Event) -> String {
    let what = match &event.change {
        Change::Inherited { child } => format!("inherited by {child}"),
        Change::Modified { keys } => format!("modified {}", keys.join(" ")),
        Change::Unbound {
            exit: Some(exit), ..
        } => {
            let with = exit
                .code
                .or(exit.signal)
                .map(|number| format!(" {number}"))
                .unwrap_or_default();
            format!("unbound {}{with}", exit.reason.as_str())
        }
        other => other.as_str().to_owned(),
    };
    let reconciled = if event.reconciled {
        " (reconciled)"
    } else {
        ""
    };
    format!("{} {what}{reconciled}", event.id)
}

/// The audit rows of an element as lines: verb, revisions, outcome.
pub(super) async fn rows(node: &Node, id: &str) -> Vec<String> {
    let rows = node
        .port_layer
        .audit_log(&id.parse().unwrap())
        .await
        .unwrap();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.sequence, at as u64 + 1);
        assert!(
            !row.operation.is_empty() && !row.actor.is_empty(),
            "{row:?}"
        );
    }
    let rows = rows.iter().map(|row| {
        let outcome = match &row.outcome {
            Outcome::Ok => "ok",
            Outcome::Failed(code) => code,
        };
        format!(
            "{} {}>{} {outcome}",
            row.verb.as_str(),
            row.revision_before,
            row.revision_after
        )
    });
    rows.collect()
}
