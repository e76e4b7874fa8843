//! `export`: the data of one element as a stream.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use portlayer::element::{DataStream, ElementId, Kind};
use tokio::io::AsyncWriteExt;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};

/// Write the data of one: an image as an OCI archive, a volume as a tar, a task as its definition
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The element
    id: String,
    /// Write to this file instead of standard output
    #[arg(short = 'O', long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(crate) async fn run(kind: Option<Kind>, args: ExportArgs, context: &Context) -> Outcome {
    let id = usage(context.names().await?.one(kind, &args.id))?;
    if args.to.is_none() && kind != Some(Kind::Task) && std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "standard output is a terminal; redirect it or give -O FILE",
        ));
    }
    context
        .with_client(async |client| {
            let data = client.export(&id).await?;
            match &args.to {
                Some(path) => to_file(&id, data, path).await,
                None => copy(&id, data, &mut tokio::io::stdout()).await,
            }
        })
        .await
}

/// Writes a fresh file; when it cannot be finished it is taken away again.
async fn to_file(id: &ElementId, data: DataStream, path: &std::path::Path) -> Outcome {
    let mut file = tokio::fs::File::create_new(path).await.map_err(|error| {
        Failure::from(error).context(format!("creating {} failed", path.display()))
    })?;
    let copied = copy(id, data, &mut file).await;
    if copied.is_err() {
        // Only tidying up: the error is what counts.
        let _ = tokio::fs::remove_file(path).await;
    }
    copied
}

async fn copy<W: tokio::io::AsyncWrite + Unpin>(
    id: &ElementId,
    mut data: DataStream,
    to: &mut W,
) -> Outcome {
    let failed =
        |error: std::io::Error| Failure::from(error).context(format!("exporting {id} failed"));
    tokio::io::copy(&mut data, to).await.map_err(failed)?;
    to.flush().await.map_err(failed)?;
    Ok(Exit::OK)
}
