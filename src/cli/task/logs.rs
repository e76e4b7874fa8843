//! `portlayer logs`: the stored output of a task, byte for byte.

use clap::Args;
use futures::StreamExt;
use portlayer::runtime::{LogQuery, LogStreams};
use portlayer::time::Timestamp;

use super::TaskArg;
use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::{self, OutputArgs, Streams};
use crate::cli::parse;

/// Show the stored output of a task, each stream on its own
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Only what was stored since: RFC 3339, Unix seconds, or that long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last so many lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Only this stream
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr"])]
    stream: Option<String>,
    /// When each piece was stored, before it
    #[arg(short, long)]
    timestamps: bool,
    /// Instead, how far each log has got that it is sent on to
    #[arg(long, conflicts_with_all = ["follow", "since", "tail", "stream", "timestamps"])]
    sent: bool,
    /// One JSON object per piece: stream, time, sequence, text or base16
    #[arg(short, long, value_name = "FORMAT", value_parser = ["jsonl"])]
    output: Option<String>,
}

pub(crate) async fn run(args: LogsArgs, context: &Context) -> Outcome {
    let since = args
        .since
        .as_deref()
        .map(|text| usage(parse::moment(text, Timestamp::now())))
        .transpose()?;
    context
        .with_client(async |client| {
            let (executor, task) = args.task.resolve(client, context).await?;
            if args.sent {
                let logs = client.log_progress(&executor, &task).await?;
                match args.output {
                    Some(_) => logs.iter().try_for_each(output::write_json_line)?,
                    None => context.out(OutputArgs::default()).list(&logs)?,
                }
                return Ok(Exit::OK);
            }
            let query = LogQuery {
                executor,
                task,
                streams: match args.stream.as_deref() {
                    Some("stdout") => LogStreams::Stdout,
                    Some(_) => LogStreams::Stderr,
                    None => LogStreams::Both,
                },
                since,
                tail: args.tail,
                follow: args.follow,
            };
            let mut chunks = client.logs(&query).await?;
            let mut streams = Streams::new();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                if args.output.is_some() {
                    output::write_json_line(&json(&chunk))?;
                    continue;
                }
                if chunk.lost_bytes > 0 {
                    output::note(&format!(
                        "{} bytes of output were lost here",
                        chunk.lost_bytes
                    ));
                }
                if args.timestamps {
                    let time = format!("{} ", chunk.time);
                    streams.write(chunk.stderr, time.as_bytes()).await?;
                }
                streams.write(chunk.stderr, &chunk.bytes).await?;
            }
            Ok(Exit::OK)
        })
        .await
}

fn json(chunk: &portlayer::runtime::LogChunk) -> serde_json::Value {
    let stream = if chunk.stderr { "stderr" } else { "stdout" };
    let mut value = serde_json::json!({
        "stream": stream,
        "time": chunk.time,
        "sequence": chunk.sequence,
        "lost_bytes": chunk.lost_bytes,
    });
    match std::str::from_utf8(&chunk.bytes) {
        Ok(text) => value["text"] = text.into(),
        Err(_) => value["base16"] = base16(&chunk.bytes).into(),
    }
    value
}

fn base16(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_text_where_it_can_be() {
        let mut chunk = portlayer::runtime::LogChunk {
            stderr: true,
            time: Timestamp::from_nanos(0),
            sequence: 4,
            bytes: b"a\x1b".to_vec(),
            lost_bytes: 0,
        };
        assert_eq!(json(&chunk)["text"], "a\u{1b}");
        assert_eq!(json(&chunk)["stream"], "stderr");
        chunk.bytes = vec![0xff, 0x0a];
        assert_eq!(json(&chunk)["base16"], "ff0a");
    }
}
