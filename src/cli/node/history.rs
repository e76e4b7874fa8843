//! `portlayer history`: the audit log of one element, also of one that is gone.

use clap::Args;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome, fail};
use crate::cli::output::OutputArgs;
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
    let id = usage(context.names().any(&args.id))?;
    let ledger = super::open_ledger(context).await?;
    let rows = ledger.audit_log(&id).map_err(fail)?;
    if rows.is_empty() {
        let missing = anyhow::anyhow!("nothing was ever done to {id}");
        return Err(Failure::new(portlayer::error::ErrorKind::NotFound, missing));
    }
    let rows: Vec<_> = rows.into_iter().map(AuditLine).collect();
    context.out(args.output).list(&rows)?;
    Ok(Exit::OK)
}
