//! `portlayer verify`: whether the ledger still is what was written.

use clap::Args;
use portlayer::ledger::Report;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::{Out, OutputArgs};

/// Check every record's sum, every chain of audit rows and every link of the ledger; 12 when something is wrong
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: VerifyArgs, context: &Context) -> Outcome {
    context
        .with_client(async |client| show(&client.verify().await?, context.out(args.output)))
        .await
}

/// What was found.
pub(super) fn show(report: &Report, out: Out) -> Outcome {
    let verdict = if report.is_clean() { "ok" } else { "failed" };
    let mut lines: Vec<(String, Vec<u8>)> = vec![
        ("state".to_owned(), verdict.into()),
        ("records".to_owned(), report.records.to_string().into()),
        (
            "audit rows".to_owned(),
            report.audit_rows.to_string().into(),
        ),
        ("audit chains".to_owned(), report.chains.to_string().into()),
        ("events".to_owned(), report.events.to_string().into()),
    ];
    for key in &report.damaged {
        lines.push(("damaged".to_owned(), key.clone().into()));
    }
    for chain in &report.broken_chains {
        let text = format!("{} at row {}", chain.id, chain.row);
        lines.push(("broken audit log".to_owned(), text.into()));
    }
    for link in &report.dangling {
        let text = format!(
            "{} of {} to {}: {} is missing",
            link.index, link.first, link.second, link.missing
        );
        lines.push(("dangling link".to_owned(), text.into()));
    }
    if report.heads_match == Some(false) {
        lines.push(("audit logs".to_owned(), "whole rows are missing".into()));
    }
    out.one(report, verdict, &lines)?;
    Ok(if report.is_clean() {
        Exit::OK
    } else {
        Exit(12)
    })
}
