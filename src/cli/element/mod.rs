//! The verbs of elements: `portlayer image ls`, `portlayer volume create`, ...

mod create;
mod export;
mod import;
mod list;
pub(crate) mod pull;
mod remove;
mod show;
mod update;

use clap::{Args, Subcommand};
use portlayer::element::Kind;

use super::context::Context;
use super::failure::Outcome;
pub(crate) use create::{CreateArgs, KindFlags};
pub(crate) use create::{
    ExecutorFlagsOfCreate, ImageFlags, SettingFlags, TaskFlagsOfCreate, VolumeFlags,
};
pub(crate) use export::ExportArgs;
pub(crate) use import::ImportArgs;
pub(crate) use list::ListArgs;
pub(crate) use remove::RemoveArgs;
pub(crate) use show::ShowArgs;
pub(crate) use update::UpdateArgs;

/// The verbs of one kind; `C` are the flags only its create has.
#[derive(Debug, Args)]
pub(crate) struct KindArgs<C: Args> {
    #[command(subcommand)]
    verb: KindVerb<C>,
}

#[derive(Debug, Subcommand)]
enum KindVerb<C: Args> {
    /// Create one
    Create(CreateArgs<C>),
    /// List them
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show one or more in full
    Show(ShowArgs),
    /// Remove one or more
    #[command(visible_alias = "delete")]
    Rm(RemoveArgs),
    /// Change mutable metadata: KEY=VALUE sets, KEY- deletes
    #[command(visible_alias = "set")]
    Update(UpdateArgs),
    /// Write the data of one to standard output or a file
    Export(ExportArgs),
}

/// Runs a verb of one kind.
pub(crate) async fn of_kind<C: KindFlags>(
    kind: Kind,
    args: KindArgs<C>,
    context: &Context,
) -> Outcome {
    match args.verb {
        KindVerb::Create(args) => create::run(kind, args, context).await,
        KindVerb::Ls(args) => list::run(Some(kind), args, context).await,
        KindVerb::Show(args) => show::run(Some(kind), args, context).await,
        KindVerb::Rm(args) => remove::run(Some(kind), args, context).await,
        KindVerb::Update(args) => update::run(Some(kind), args, context).await,
        KindVerb::Export(args) => export::run(Some(kind), args, context).await,
    }
}

/// `portlayer ls`.
pub(crate) async fn list(args: ListArgs, context: &Context) -> Outcome {
    list::run(None, args, context).await
}

/// `portlayer show`.
pub(crate) async fn show(args: ShowArgs, context: &Context) -> Outcome {
    show::run(None, args, context).await
}

/// `portlayer rm`.
pub(crate) async fn remove(args: RemoveArgs, context: &Context) -> Outcome {
    remove::run(None, args, context).await
}

/// `portlayer update`.
pub(crate) async fn update(args: UpdateArgs, context: &Context) -> Outcome {
    update::run(None, args, context).await
}

/// `portlayer import`.
pub(crate) async fn import(args: ImportArgs, context: &Context) -> Outcome {
    import::run(args, context).await
}

/// `portlayer export`.
pub(crate) async fn export(args: ExportArgs, context: &Context) -> Outcome {
    export::run(None, args, context).await
}
