//! `portlayer events`: what changed, in order.

use clap::Args;
use futures::StreamExt;
use portlayer::event::Event;
use portlayer::filter::EventFilter;
use portlayer::time::Timestamp;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome, fail};
use crate::cli::filter::FilterArgs;
use crate::cli::output;
use crate::cli::parse;
use crate::cli::rows::EventRow;

/// Show events: those that are stored, or with --follow those to come
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// From this sequence number on, or since this time: RFC 3339, Unix seconds, or that long ago (10m). Without it
    /// all that are stored; with --follow only those to come
    #[arg(long, value_name = "SEQUENCE|TIME")]
    since: Option<String>,
    /// Go on with the events to come, until interrupted (-f is --filter, as in the lists)
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Lines for people, or one JSON object per line
    #[arg(short, long, value_name = "FORMAT", value_parser = ["table", "jsonl"], default_value = "table")]
    output: String,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Sequence(u64),
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
    let filter = EventFilter::parse(&args.filter.alternatives(&[]))
        .map_err(|error| fail(portlayer::error::ReadError::from(error)))?;
    let wanted = move |event: &Event| {
        filter.selects_event(event)
            && match since {
                Some(Since::Time(time)) => event.time >= time,
                _ => true,
            }
    };
    let ledger = super::open_ledger(context).await?;
    let from = match (since, args.follow) {
        (Some(Since::Sequence(sequence)), _) => Some(sequence),
        (Some(Since::Time(_)), _) | (None, false) => Some(1),
        (None, true) => None,
    };
    let last = ledger.last_sequence();
    let mut events = ledger.subscribe(from, |_| true);
    if !args.follow && from.is_none_or(|from| from > last) {
        return Ok(Exit::OK);
    }
    while let Some(event) = events.next().await {
        let event = event.map_err(fail)?;
        if wanted(&event) {
            let row = EventRow(&event);
            if args.output == "jsonl" {
                output::write_json_line(&row)?;
            } else {
                output::write_out(&output::escape::escape_message(&row.line()))?;
                output::write_out("\n")?;
            }
        }
        if !args.follow && event.sequence >= last {
            break;
        }
    }
    Ok(Exit::OK)
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
