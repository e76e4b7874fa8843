//! `portlayer audit`: everything of ours that is there, compared with the ledger.

use clap::Args;
use portlayer::Audited;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::{self, Column, OutputArgs, Row};

/// List everything of ours in the engine, the kernel and the stores and compare it with the ledger; 12 when something
/// belongs to nothing
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// What has an owner too, not only leaks
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct AuditedRow(Audited);

impl Row for AuditedRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("CLASS"),
        Column::new("NAME"),
        Column::new("OWNER"),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let class = serde_json::to_value(self.0.finding.class).unwrap_or_default();
        vec![
            class.as_str().unwrap_or_default().into(),
            self.0.finding.name.clone().into(),
            match &self.0.owner {
                Some(owner) => owner.as_str().into(),
                None => "(nobody)".into(),
            },
        ]
    }

    fn name(&self) -> String {
        self.0.finding.name.clone()
    }
}

pub(crate) async fn run(args: AuditArgs, context: &Context) -> Outcome {
    context
        .with_client(async |client| {
            let report = client.audit().await?;
            let (clean, leaks) = (report.is_clean(), report.leaks().count());
            let rows: Vec<_> = report
                .found
                .into_iter()
                .filter(|audited| args.all || audited.owner.is_none())
                .map(AuditedRow)
                .collect();
            context.out(args.output).list(&rows)?;
            if clean {
                return Ok(Exit::OK);
            }
            output::note(&format!("{leaks} things belong to nothing"));
            Ok(Exit(12))
        })
        .await
}
