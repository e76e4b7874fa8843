//! `ls`: elements a filter selects.

use clap::Args;
use portlayer::element::{Kind, ListQuery, MAX_PAGE};

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::filter::FilterArgs;
use crate::cli::output::{self, Format, OutputArgs};
use crate::cli::rows::ElementRow;

/// List elements
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only ids that begin with this text
    prefix: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Hidden elements too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(kind: Option<Kind>, args: ListArgs, context: &Context) -> Outcome {
    let out = context.out(args.output);
    let mut query = ListQuery {
        filters: args.filter.alternatives(&[]),
        kind,
        prefix: args.prefix,
        limit: MAX_PAGE,
        hidden: args.all,
        ..ListQuery::default()
    };
    context
        .with_client(async |client| {
            let mut rows = Vec::new();
            loop {
                let page = client.list(query.clone()).await?;
                for id in &page.damaged {
                    output::note(&format!("the record of {id} is damaged and left out"));
                }
                rows.extend(ElementRow::of(page.items));
                // Line by line nothing has to be kept.
                if out.format() == Format::Jsonl || out.format() == Format::Name {
                    out.list(&rows)?;
                    rows.clear();
                }
                if page.next.is_none() {
                    break;
                }
                query.page = page.next;
            }
            if !matches!(out.format(), Format::Jsonl | Format::Name) {
                out.list(&rows)?;
            }
            Ok(Exit::OK)
        })
        .await
}
