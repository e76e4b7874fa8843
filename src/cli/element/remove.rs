//! `rm`: one or more elements; what can be removed is, whatever happens to the others.

use clap::Args;
use portlayer::element::{ElementId, Kind};
use portlayer_client::Client;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::{output, task};

/// Remove one or more
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Stop an executor that runs; what is not there is fine
    #[arg(short, long)]
    force: bool,
    /// Remove what cannot be read any more: its record is damaged
    #[arg(long, conflicts_with = "force")]
    damaged: bool,
    /// Do not print the ids that were removed
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(kind: Option<Kind>, args: RemoveArgs, context: &Context) -> Outcome {
    let ids = usage(context.names().await?.of(kind, &args.ids))?;
    context
        .with_client(async |client| {
            let mut failed: Option<Failure> = None;
            for id in &ids {
                match remove(client, id, &args).await {
                    Ok(true) if !args.quiet => output::write_out(&format!("{id}\n"))?,
                    Ok(_) => {}
                    // The last failure is reported by the caller, the others here.
                    Err(failure) => {
                        if let Some(earlier) = failed.replace(failure) {
                            output::failure(&earlier.text(false));
                        }
                    }
                }
            }
            failed.map_or(Ok(Exit::OK), Err)
        })
        .await
}

/// Whether it was there.
async fn remove(client: &Client, id: &ElementId, args: &RemoveArgs) -> Result<bool, Failure> {
    let force = args.force;
    if args.damaged {
        client.delete_damaged(id).await?;
        return Ok(true);
    }
    if force && id.kind() == Kind::Executor {
        return task::remove_executor(client, id).await;
    }
    match client.delete(id).await {
        Ok(()) => Ok(true),
        Err(error) if force && error.reason() == "not_found" => Ok(false),
        Err(error) if error.reason() == "invalid_state" => {
            let hint = format!("stop it first (`portlayer stop {id}`) or use --force");
            Err(Failure::from(error).hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}
