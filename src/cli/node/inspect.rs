//! `portlayer inspect`: everything the ledger knows of an element, for programs.

use clap::Args;
use portlayer::element::{Descriptor, ElementId};
use portlayer::error::ReadError;
use portlayer::ledger::{AuditRow, Index, Ledger};
use portlayer::task::ExitRecord;
use serde::Serialize;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome, fail};
use crate::cli::output::{Format, OutputArgs};

/// Show everything known of elements: record, children, users, exit records, audit rows
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// How to write it
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "jsonl", "yaml"], default_value = "json")]
    output: String,
}

#[derive(Debug, Serialize)]
struct Inspected {
    #[serde(flatten)]
    element: Descriptor,
    /// Elements made from it.
    children: Vec<ElementId>,
    /// Executors that use it.
    used_by: Vec<ElementId>,
    /// How runs ended: of an executor all of its tasks'.
    exits: Vec<ExitRecord>,
    /// Who did what to it.
    audit: Vec<AuditRow>,
}

pub(crate) async fn run(args: InspectArgs, context: &Context) -> Outcome {
    let ids = usage(context.names().of(None, &args.ids))?;
    let ledger = super::open_ledger(context).await?;
    let found = ids
        .iter()
        .map(|id| inspect(&ledger, id))
        .collect::<Result<Vec<_>, _>>()?;
    let output = match args.output.as_str() {
        "yaml" => Format::Yaml,
        "jsonl" => Format::Jsonl,
        _ => Format::Json,
    };
    let out = context.out(OutputArgs {
        output,
        ..OutputArgs::default()
    });
    if output == Format::Jsonl {
        for inspected in &found {
            out.one(inspected, "", &[])?;
        }
    } else {
        out.one(&found, "", &[])?;
    }
    Ok(Exit::OK)
}

fn inspect(ledger: &Ledger, id: &ElementId) -> Result<Inspected, Failure> {
    let record = ledger
        .get(id)
        .map_err(fail)?
        .ok_or_else(|| fail(ReadError::NotFound { id: id.clone() }))?;
    Ok(Inspected {
        element: record.into_descriptor(),
        children: ledger.linked(Index::Children, id).map_err(fail)?,
        used_by: ledger.linked(Index::References, id).map_err(fail)?,
        exits: ledger.exits(id, None).map_err(fail)?,
        audit: ledger.audit_log(id).map_err(fail)?,
    })
}
