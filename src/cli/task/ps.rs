//! `portlayer ps`: what runs.

use clap::Args;
use portlayer::element::{Kind, ListQuery, MAX_PAGE};

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::filter::FilterArgs;
use crate::cli::output::OutputArgs;
use crate::cli::rows::RunRow;

/// Show the tasks that run
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// The newest run of tasks that ended too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: PsArgs, context: &Context) -> Outcome {
    let mut query = ListQuery {
        filters: args.filter.alternatives(&[]),
        kind: Some(Kind::Executor),
        limit: MAX_PAGE,
        hidden: true,
        ..ListQuery::default()
    };
    context
        .with_client(async |client| {
            let mut rows = Vec::new();
            loop {
                let page = client.list(query.clone()).await?;
                rows.extend(
                    page.items
                        .iter()
                        .flat_map(|executor| RunRow::of(executor, args.all)),
                );
                if page.next.is_none() {
                    break;
                }
                query.page = page.next;
            }
            context.out(args.output).list(&rows)?;
            Ok(Exit::OK)
        })
        .await
}
