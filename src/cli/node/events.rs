//! `portlayer events`: what changed, in order.

use clap::{Args, ValueEnum};
use futures::StreamExt;
use portlayer::error::ReadError;
use portlayer::event::{Change, Event, Sequence};
use portlayer::filter::EventFilter;
use portlayer::time::Timestamp;
use portlayer_client::Client;

use super::cloud_event::{self, CloudEvent};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome, refused};
use crate::cli::filter::FilterArgs;
use crate::cli::output;
use crate::cli::parse;
use crate::cli::rows::EventRow;
use crate::cli::task::signals::Signals;

/// Events asked for at once.
const PAGE: usize = 10_000;

/// Show events in order: those that are stored, or with --follow those to come
///
/// A line that says "gap" stands for events that are no longer stored, or came too fast for this reader: what they
/// told must be read from the elements. To resume, give --since the last sequence seen and one.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From this sequence number on, or since this time: RFC 3339, Unix seconds, or that long ago (10m). Without it
    /// all that are stored; with --follow only those to come
    #[arg(long, value_name = "SEQUENCE|TIME")]
    since: Option<String>,
    /// Go on with the events to come, until interrupted; also when the daemon is restarted meanwhile
    #[arg(short, long)]
    follow: bool,
    /// containerd's syntax, e.g. 'kind==task,change==unbound'; several select what any of them selects
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines for people.
    #[default]
    Table,
    /// One JSON object per line.
    Jsonl,
    /// One CloudEvent 1.0 in JSON per line.
    Cloudevents,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Sequence(Sequence),
    Time(Timestamp),
}

fn since(text: &str, now: Timestamp) -> Result<Since, String> {
    match text.parse::<u64>() {
        // No node makes so many events; seconds since 2001 are more.
        Ok(number) if number < 1_000_000_000 => Ok(Since::Sequence(number)),
        _ => parse::moment(text, now).map(Since::Time),
    }
}

pub(crate) async fn run(args: EventsArgs, context: &Context) -> Outcome {
    let since = args
        .since
        .as_deref()
        .map(|text| since(text, Timestamp::now()).map_err(Failure::usage))
        .transpose()?;
    let filters = FilterArgs {
        filters: args.filters,
    };
    let filters = filters.alternatives(&[]);
    let filter = EventFilter::parse(&filters);
    let filter = filter.map_err(|error| refused(ReadError::from(error)))?;
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let writer = Writer {
                form: args.output,
                source: source(client, args.output).await?,
            };
            let from = match since {
                Some(Since::Sequence(sequence)) => Some(sequence.max(1)),
                Some(Since::Time(time)) => Some(at(client, time).await?),
                None if args.follow => None,
                None => Some(1),
            };
            tokio::select! {
                // Not in the middle of a line.
                biased;
                number = signals.ending() => Ok(Exit::of_signal(number)),
                done = async {
                    match from {
                        Some(from) if !args.follow => stored(client, from, &filter, &writer).await,
                        from => follow(client, from, &filters, &writer).await,
                    }
                } => done,
            }
        })
        .await
}

/// What is stored now, from a sequence on.
async fn stored(client: &Client, from: Sequence, filter: &EventFilter, writer: &Writer) -> Outcome {
    let last = client.last_sequence().await?;
    let mut next = from;
    while next <= last {
        let events = client.events(next, PAGE).await?;
        let Some(end) = events.last().map(|event| event.sequence) else {
            break;
        };
        for event in events.iter().filter(|event| filter.selects_event(event)) {
            writer.write(event)?;
        }
        next = end + 1;
    }
    Ok(Exit::OK)
}

async fn follow(
    client: &Client,
    from: Option<Sequence>,
    filters: &[String],
    writer: &Writer,
) -> Outcome {
    let mut events = client.subscribe(from, filters).await?;
    while let Some(event) = events.next().await {
        writer.write(&event?)?;
    }
    Ok(Exit::OK)
}

/// The sequence of the first event at or after a time, by halving: clocks that were set back in between make it one of
/// several that could be meant.
async fn at(client: &Client, time: Timestamp) -> Result<Sequence, Failure> {
    let (mut low, mut high) = (1, client.last_sequence().await? + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let events = client.events(middle, 2).await?;
        let stored = |event: &&Event| !matches!(event.change, Change::Gap { .. });
        match events.iter().find(stored) {
            Some(event) if event.time < time => low = event.sequence + 1,
            // Nothing is stored there: what there was may have been later.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The source of CloudEvents: only those need to ask for it.
async fn source(client: &Client, form: Form) -> Result<String, Failure> {
    if form != Form::Cloudevents {
        return Ok(String::new());
    }
    let host = nix::sys::utsname::uname().map_err(std::io::Error::from)?;
    let data_dir = client.info(false).await?.data_dir;
    Ok(cloud_event::source(
        &host.nodename().to_string_lossy(),
        &data_dir,
    ))
}

struct Writer {
    form: Form,
    source: String,
}

impl Writer {
    fn write(&self, event: &Event) -> std::io::Result<()> {
        match self.form {
            Form::Table => {
                let line = EventRow(event).line();
                output::write_out(&(output::escape::escape_message(&line) + "\n"))
            }
            Form::Jsonl => output::write_json_line(&EventRow(event)),
            Form::Cloudevents => output::write_json_line(&CloudEvent::new(event, &self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sequences_and_times_are_times() {
        let now = Timestamp::from_nanos(1_700_000_060_000_000_000);
        assert_eq!(since("17", now), Ok(Since::Sequence(17)));
        let then = Since::Time(Timestamp::from_nanos(1_700_000_000_000_000_000));
        assert_eq!(since("1m", now), Ok(then));
        assert_eq!(since("1700000000", now), Ok(then));
        assert!(since("soon", now).is_err());
    }
}
