//! `portlayer.v1.EventsService`: several events in a message, for a message costs more than an event.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use portlayer::PortLayer;
use portlayer::element::{ListQuery, MAX_PAGE};
use portlayer::error::Error;
use portlayer::event::Event;
use portlayer::ledger::LedgerError;
use portlayer_client::wire::{self, WireError, status_of};
use portlayer_proto::v1;
use portlayer_proto::v1::events_service_server::EventsService;
use portlayer_proto::v1::subscribe_response::Part;
use tonic::{Request, Response, Status};

use super::gate::Counted;
use super::{Answers, Shared, bad, layer_of};

/// Events in one message at most.
const BATCH: usize = 512;
/// Events of a fetch that does not say, and at most.
const FETCH: (usize, usize) = (1000, 10_000);

pub(super) struct Events(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl EventsService for Events {
    type SubscribeStream = Answers<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let snapshot = match message.snapshot {
            None => None,
            Some(_) if message.from.is_some() => {
                return Err(bad(WireError::Invalid {
                    field: "from".to_owned(),
                    rule: "a snapshot says itself where it goes on",
                }));
            }
            Some(list) => {
                let query = wire::list_query(list);
                Some(query.map_err(|error| bad(error.within("snapshot")))?)
            }
        };
        // First the place, then the state: what changes in between comes as an event too.
        let next = message.from.unwrap_or_else(|| layer.last_sequence() + 1);
        let events = layer.subscribe(Some(next), &message.filters);
        let events = events.map_err(status_of)?;
        let subscribed = part(Part::Subscribed(v1::Subscribed {
            next_sequence: next.max(1),
        }));
        let first = stream::iter([Ok(subscribed)]);
        let counted = Counted::new(&self.0.subscriptions);
        let metrics = self.0.metrics.clone();
        let events = events.ready_chunks(BATCH).flat_map(move |events| {
            // Lives as long as the stream.
            let _subscription = &counted;
            let messages = messages(events);
            let is_gap = |message: &&Result<v1::SubscribeResponse, _>| {
                let part = message
                    .as_ref()
                    .ok()
                    .and_then(|message| message.part.as_ref());
                matches!(part, Some(Part::Gap(_)))
            };
            metrics.count_gaps(messages.iter().filter(is_gap).count() as u64);
            stream::iter(messages)
        });
        let pages = match snapshot {
            None => stream::empty().boxed(),
            Some(query) => pages(layer, query).await?.boxed(),
        };
        let all = first.chain(pages).chain(events);
        Ok(Response::new(self.0.until_draining(all)))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let layer = layer_of(&request)?;
        let v1::FetchRequest { from, limit } = request.into_inner();
        let limit = match usize::try_from(limit).unwrap_or(FETCH.1) {
            0 => FETCH.0,
            limit => limit.min(FETCH.1),
        };
        let last = layer.last_sequence();
        let events = match from > last {
            true => Vec::new(),
            false => layer.events(from, limit).await.map_err(status_of)?,
        };
        Ok(Response::new(wire::fetched(events, last)))
    }
}

fn part(part: Part) -> v1::SubscribeResponse {
    v1::SubscribeResponse { part: Some(part) }
}

fn messages(
    events: Vec<Result<Arc<Event>, LedgerError>>,
) -> Vec<Result<v1::SubscribeResponse, Status>> {
    let mut good = Vec::with_capacity(events.len());
    let mut failure = None;
    for event in events {
        match event {
            Ok(event) => good.push(Arc::unwrap_or_clone(event)),
            Err(error) => failure = Some(Err(status_of(error))),
        }
    }
    let parts = wire::parts(good).into_iter().map(Ok);
    parts.chain(failure).collect()
}

/// The pages of a snapshot. The first is read at once, so that a bad filter refuses the call.
async fn pages(
    layer: PortLayer,
    mut query: ListQuery,
) -> Result<impl Stream<Item = Result<v1::SubscribeResponse, Status>> + Send, Status> {
    query.page = None;
    query.limit = MAX_PAGE;
    let first = page(&layer, &mut query).await?;
    let more = !is_last(&first);
    let rest = stream::unfold(
        (layer, query, more),
        |(layer, mut query, more)| async move {
            if !more {
                return None;
            }
            match page(&layer, &mut query).await {
                Ok(message) => {
                    let more = !is_last(&message);
                    Some((Ok(message), (layer, query, more)))
                }
                Err(status) => Some((Err(status), (layer, query, false))),
            }
        },
    );
    Ok(stream::iter([Ok(first)]).chain(rest))
}

async fn page(layer: &PortLayer, query: &mut ListQuery) -> Result<v1::SubscribeResponse, Status> {
    let listed = layer.list(query.clone()).await;
    let mut listed = listed.map_err(|error| status_of(Error::from(error)))?;
    listed.items.iter_mut().for_each(wire::hide_secrets);
    query.page = listed.next;
    Ok(part(Part::Snapshot(v1::SnapshotPage {
        elements: wire::all_into(listed.items),
        damaged: listed.damaged,
        last: query.page.is_none(),
    })))
}

fn is_last(message: &v1::SubscribeResponse) -> bool {
    !matches!(&message.part, Some(Part::Snapshot(page)) if !page.last)
}
