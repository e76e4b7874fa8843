//! `portlayer inspect`: everything the ledger knows of an element, for programs.

use clap::Args;
use portlayer::element::{Descriptor, ElementId, Kind, ListQuery, MAX_PAGE, Projection};
use portlayer::ledger::AuditRow;
use portlayer::task::ExitRecord;
use portlayer_client::Client;
use serde::Serialize;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{Format, OutputArgs};
use crate::cli::{filter, parse};

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
    let ids = args.ids.iter().map(|text| usage(parse::any(text)));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let output = match args.output.as_str() {
        "yaml" => Format::Yaml,
        "jsonl" => Format::Jsonl,
        _ => Format::Json,
    };
    let out = context.out(OutputArgs {
        output,
        ..OutputArgs::default()
    });
    context
        .with_client(async |client| {
            let mut found = Vec::with_capacity(ids.len());
            for id in &ids {
                found.push(inspect(client, id).await?);
            }
            if output == Format::Jsonl {
                for inspected in &found {
                    out.one(inspected, "", &[])?;
                }
            } else {
                out.one(&found, "", &[])?;
            }
            Ok(Exit::OK)
        })
        .await
}

async fn inspect(client: &Client, id: &ElementId) -> Result<Inspected, Failure> {
    Ok(Inspected {
        element: client.read(id).await?,
        children: selected(client, filter::equals("parent", id.as_str())).await?,
        used_by: selected(client, filter::equals("uses", id.as_str())).await?,
        exits: match id.kind() {
            Kind::Executor => client.exits(id, None).await?,
            _ => Vec::new(),
        },
        audit: client.audit_log(id).await?,
    })
}

/// The ids of the elements a filter selects.
async fn selected(client: &Client, filter: String) -> Result<Vec<ElementId>, Failure> {
    let mut query = ListQuery {
        filters: vec![filter],
        limit: MAX_PAGE,
        hidden: true,
        projection: Projection::without_metadata(),
        ..ListQuery::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = client.list(query.clone()).await?;
        ids.extend(page.items.into_iter().map(|element| element.id));
        if page.next.is_none() {
            return Ok(ids);
        }
        query.page = page.next;
    }
}
