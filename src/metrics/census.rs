//! How many elements there are: counted when somebody asks, and not too often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portlayer::PortLayer;
use portlayer::element::{ListQuery, MAX_PAGE, Projection};
use portlayer::error::ReadError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

/// A count stands at least so long.
const STANDS: Duration = Duration::from_secs(30);
/// And so many times as long as it took: counting costs a twentieth of a processor at most.
const SHARE: u32 = 20;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct Class {
    kind: &'static str,
    state: &'static str,
}

/// Elements by kind and state.
pub(super) struct Census {
    elements: Family<Class, Gauge>,
    /// When the next count is due.
    due: Mutex<Option<Instant>>,
}

impl Census {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let elements = Family::default();
        let help = "Elements, as of up to half a minute ago";
        registry.register("elements", help, elements.clone());
        Self {
            elements,
            due: Mutex::default(),
        }
    }

    /// Counts if that is due. A count that fails leaves the last one.
    pub(super) async fn take(&self, layer: &PortLayer) {
        let mut due = self.due.lock().await;
        let now = Instant::now();
        if due.is_some_and(|due| due > now) {
            return;
        }
        match count(layer).await {
            Ok(counts) => {
                self.elements.clear();
                for (class, count) in counts {
                    self.elements.get_or_create(&class).set(count);
                }
            }
            Err(error) => tracing::warn!(%error, "the elements could not be counted"),
        }
        *due = Some(Instant::now() + STANDS.max(now.elapsed() * SHARE));
    }
}

async fn count(layer: &PortLayer) -> Result<BTreeMap<Class, i64>, ReadError> {
    let mut query = ListQuery {
        limit: MAX_PAGE,
        hidden: true,
        projection: Projection::without_metadata(),
        ..ListQuery::default()
    };
    let mut counts = BTreeMap::new();
    loop {
        let page = layer.list(query.clone()).await?;
        for element in &page.items {
            let class = Class {
                kind: element.id.kind().as_str(),
                state: element.state.as_str(),
            };
            *counts.entry(class).or_insert(0) += 1;
        }
        if page.next.is_none() {
            return Ok(counts);
        }
        query.page = page.next;
    }
}
