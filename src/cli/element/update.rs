//! `update`: the mutable metadata of one element.

use clap::Args;
use portlayer::element::Kind;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::{parse, rows};

/// Change mutable metadata
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// The element
    id: String,
    /// KEY=VALUE sets, KEY- deletes
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = parse::patch_entry)]
    entries: Vec<(String, Option<Vec<u8>>)>,
    /// Only when the element is at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(kind: Option<Kind>, args: UpdateArgs, context: &Context) -> Outcome {
    let id = usage(context.names().await?.one(kind, &args.id))?;
    let mut patch = portlayer::element::Patch::new();
    for (key, value) in args.entries {
        if patch.contains_key(&key) {
            return Err(Failure::usage(format!("key {key:?} is there twice")));
        }
        patch.insert(key, value);
    }
    context
        .with_client(async |client| {
            let updated = client.update(&id, patch, args.expect).await?;
            let element = updated.descriptor;
            context
                .out(args.output)
                .one(&element, id.as_str(), &rows::details(&element))?;
            Ok(Exit::OK)
        })
        .await
}
