//! `portlayer compose apply -f FILE`.

use std::path::PathBuf;

use clap::Args;
use portlayer::element::{NewElement, Spec};

use super::{apply_edit, file, show};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::OutputArgs;

/// Open, edit and commit at once
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The composition in TOML
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only show what it would do; an executor the file would create must be there
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(args: ApplyArgs, context: &Context) -> Outcome {
    let text = std::fs::read_to_string(&args.file).map_err(|error| {
        Failure::from(error)
            .context(format!("reading {} failed", args.file.display()))
            .exit(2)
    })?;
    let wanted = file::read(&text, &context.names().await?)
        .map_err(|rule| Failure::usage(format!("{}: {rule}", args.file.display())))?;
    let out = context.out(args.output);
    context
        .with_client(async move |client| {
            if let (Some(spec), false) = (wanted.create, args.plan) {
                let new = NewElement::new(wanted.executor.clone(), Spec::Executor(Box::new(spec)));
                match client.create(new).await {
                    Ok(_) => {}
                    Err(error) if error.reason() == "already_exists" => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut handle = client.compose(&wanted.executor).await?;
            for edit in wanted.edits {
                handle = apply_edit(client, handle, edit).await?;
            }
            if args.plan {
                show::plan(&client.plan(&handle).await?, out)?;
                return Ok(Exit::OK);
            }
            show::result(&client.commit(handle).await?, out)
        })
        .await
}
