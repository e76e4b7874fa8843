//! Following events over the wire: from a sequence, or from a snapshot, through restarts of the daemon.

use std::collections::VecDeque;
use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use portlayer::element::{Descriptor, ListQuery};
use portlayer::event::{Event, Sequence};
use portlayer_proto::v1;
use portlayer_proto::v1::events_service_client::EventsServiceClient;
use portlayer_proto::v1::subscribe_response::Part;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::connection::{ANSWER_BYTES, Patience, request};
use crate::wire::{self, Wire};
use crate::{Client, Error};

/// Events in order. Goes on after the daemon was away for a moment, without loss and without repetition; what cannot be
/// had any more is a gap among them.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// A snapshot, then events.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Watched, Error>> + Send>>;

/// What a watch delivers.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// A page of the snapshot.
    Snapshot {
        /// The elements, in the order of ids over all pages.
        elements: Vec<Descriptor>,
        /// Ids whose record is damaged.
        damaged: Vec<String>,
        /// This was the last page.
        last: bool,
    },
    /// What changed since the snapshot.
    Event(Box<Event>),
}

fn service(channel: Channel) -> EventsServiceClient<Channel> {
    EventsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

impl Client {
    /// Follows the events that pass one of the filters. See [`portlayer::PortLayer::subscribe`]. When this returns the
    /// subscription stands.
    pub async fn subscribe<S: AsRef<str>>(
        &self,
        from: Option<Sequence>,
        filters: &[S],
    ) -> Result<EventStream, Error> {
        let request = v1::SubscribeRequest {
            from,
            filters: filters
                .iter()
                .map(|text| text.as_ref().to_owned())
                .collect(),
            snapshot: None,
        };
        let watch = self.follow(request).await?;
        Ok(Box::pin(watch.filter_map(|watched| async move {
            match watched {
                Ok(Watched::Event(event)) => Some(Ok(*event)),
                Ok(Watched::Snapshot { .. }) => None,
                Err(error) => Some(Err(error)),
            }
        })))
    }

    /// First the elements a query selects, then every event after them that passes one of the filters: state and
    /// changes without a hole between them. The query's page and limit mean nothing here. A daemon that goes away
    /// before the last page ends the watch with an error.
    pub async fn watch_from_snapshot<S: AsRef<str>>(
        &self,
        query: ListQuery,
        filters: &[S],
    ) -> Result<Watch, Error> {
        let request = v1::SubscribeRequest {
            from: None,
            filters: filters
                .iter()
                .map(|text| text.as_ref().to_owned())
                .collect(),
            snapshot: Some(wire::list_request(query)),
        };
        self.follow(request).await
    }

    /// At most `limit` stored events from a sequence on. See [`portlayer::PortLayer::events`].
    pub async fn events(&self, from: Sequence, limit: usize) -> Result<Vec<Event>, Error> {
        let message = v1::FetchRequest {
            from,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        Ok(wire::read_fetched(self.fetch(message).await?)?)
    }

    /// The sequence of the last event; 0 = none yet. See [`portlayer::PortLayer::last_sequence`].
    pub async fn last_sequence(&self) -> Result<Sequence, Error> {
        let message = v1::FetchRequest {
            from: Sequence::MAX,
            limit: 1,
        };
        Ok(self.fetch(message).await?.last_sequence)
    }

    async fn fetch(&self, message: v1::FetchRequest) -> Result<v1::FetchResponse, Error> {
        let call = |channel| async move { service(channel).fetch(message).await };
        self.look("fetch", call).await
    }

    async fn follow(&self, request: v1::SubscribeRequest) -> Result<Watch, Error> {
        let mut follower = Follower {
            client: self.clone(),
            patience: self.patience(),
            snapshot: request.snapshot.is_some(),
            request,
            answers: None,
            ready: VecDeque::new(),
        };
        // A filter that cannot be parsed is told now.
        follower.open().await?;
        Ok(Box::pin(stream::unfold(
            Some(follower),
            |follower| async move {
                let mut follower = follower?;
                match follower.next().await {
                    Ok(Some(watched)) => Some((Ok(watched), Some(follower))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        )))
    }
}

struct Follower {
    client: Client,
    patience: Patience,
    /// What is asked for at the next opening: after the first it says where to go on.
    request: v1::SubscribeRequest,
    /// The snapshot is not all there yet: what was lost cannot be resumed.
    snapshot: bool,
    answers: Option<Streaming<v1::SubscribeResponse>>,
    ready: VecDeque<Watched>,
}

impl Follower {
    async fn open(&mut self) -> Result<(), Error> {
        let message = &self.request;
        let limit = self.client.long();
        let call = |channel| {
            let request = request(message.clone(), limit);
            async move { service(channel).subscribe(request).await }
        };
        let mut answers = self.client.watch("subscribe", call).await?;
        let first = answers.message().await?.and_then(|answer| answer.part);
        let Some(Part::Subscribed(subscribed)) = first else {
            return Err(Error::Short("subscribe"));
        };
        self.request.from = Some(subscribed.next_sequence);
        self.answers = Some(answers);
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Watched>, Error> {
        loop {
            if let Some(watched) = self.ready.pop_front() {
                return Ok(Some(watched));
            }
            match self.receive().await {
                Ok(()) => self.patience.renew(),
                Err(error) if error.is_lost() && !self.snapshot => {
                    self.answers = None;
                    if !self.patience.wait().await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next message in, opening the subscription again if it was lost.
    async fn receive(&mut self) -> Result<(), Error> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => return self.open().await,
        };
        // The server never ends a subscription by itself but when it goes away.
        let answer = answers.message().await?.ok_or(Error::Short("subscribe"))?;
        match answer.part {
            Some(Part::Events(batch)) => {
                for event in batch.events {
                    self.take(Event::from_wire(event)?);
                }
            }
            Some(Part::Gap(gap)) => self.take(wire::gap_event(&gap)?),
            Some(Part::Snapshot(page)) => {
                if page.last {
                    self.snapshot = false;
                    self.request.snapshot = None;
                }
                self.ready.push_back(Watched::Snapshot {
                    elements: wire::all("elements", page.elements)?,
                    damaged: page.damaged,
                    last: page.last,
                });
            }
            Some(Part::Subscribed(_)) | None => {}
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        self.request.from = Some(event.sequence + 1);
        self.ready.push_back(Watched::Event(Box::new(event)));
    }
}
