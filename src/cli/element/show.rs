//! `show`: one or more elements in full.

use clap::Args;
use portlayer::element::Kind;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::rows;

/// Show one or more in full
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Show what keeps executors apart from the host instead
    #[arg(long)]
    security: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(kind: Option<Kind>, args: ShowArgs, context: &Context) -> Outcome {
    let ids = usage(context.names().await?.of(kind, &args.ids))?;
    let out = context.out(args.output);
    context
        .with_client(async |client| {
            for id in &ids {
                if args.security {
                    let security = client.security(id).await?;
                    out.one(&security, id.as_str(), &rows::security(&security))?;
                    continue;
                }
                let element = client.read(id).await?;
                out.one(&element, id.as_str(), &rows::details(&element))?;
            }
            Ok(Exit::OK)
        })
        .await
}
