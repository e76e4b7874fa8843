//! `portlayer history`: the audit log of one element, also of one that is gone.

use clap::Args;
use portlayer::error::ErrorKind;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::parse;
use crate::cli::rows::AuditLine;

/// Show who did what to an element and when; rows outlive the element
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The element
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: HistoryArgs, context: &Context) -> Outcome {
    let id = usage(parse::any(&args.id))?;
    context
        .with_client(async |client| {
            let rows = client.audit_log(&id).await?;
            if rows.is_empty() {
                let missing = anyhow::anyhow!("nothing was ever done to {id}");
                return Err(Failure::new(ErrorKind::NotFound, missing));
            }
            let rows: Vec<_> = rows.into_iter().map(AuditLine).collect();
            context.out(args.output).list(&rows)?;
            Ok(Exit::OK)
        })
        .await
}
