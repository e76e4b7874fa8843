//! The command line: one file per subcommand, each thin: parse, call the port layer through its client, show. The client
//! speaks to the daemon, or to a node this process opens: commands do not see which.

mod completion;
mod compose;
mod config;
mod context;
mod copy;
mod diego;
mod element;
mod embedded;
mod exit_code;
mod failure;
mod filter;
mod node;
mod output;
mod parse;
mod rows;
mod serve;
mod source;
mod task;
mod task_flags;
mod terminal;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use portlayer_node::config::{self as settings, Environment, Flags};

use context::Context;
use element::KindArgs;
use failure::{Failure, Outcome};
use output::{ColorChoice, ProgressMode};
use portlayer::element::Kind;
#[cfg(feature = "otel")]
use portlayer_node::trace::Spans;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs other people's task definitions on one node, on containerd.
#[derive(Debug, Parser)]
#[command(
    name = "portlayer",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file [env: PORTLAYER_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    config: Option<PathBuf>,
    /// Directory of everything persistent [env: PORTLAYER_DATA_DIR]; without --socket: the node in it, through its
    /// daemon if it has one, else opened in this process
    #[arg(long, global = true, value_name = "DIR", help_heading = "Node")]
    data_dir: Option<PathBuf>,
    /// Socket of the daemon [env: PORTLAYER_SOCKET]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help_heading = "Node",
        conflicts_with = "embedded"
    )]
    socket: Option<PathBuf>,
    /// Open the node in this process instead of speaking to a daemon [env: PORTLAYER_EMBEDDED]
    #[arg(long, global = true, help_heading = "Node")]
    embedded: bool,
    /// Show the causes of errors and log what happens (RUST_LOG has the last word)
    #[arg(long, global = true, help_heading = "Display")]
    debug: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Display"
    )]
    color: ColorChoice,
    /// How to show progress
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "HOW",
        help_heading = "Display"
    )]
    progress: ProgressMode,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Images: root file systems
    Image(KindArgs<element::ImageFlags>),
    /// Volumes: storage that is mounted into executors
    Volume(KindArgs<element::VolumeFlags>),
    /// Tasks: what to run
    Task(KindArgs<element::TaskFlagsOfCreate>),
    /// Executors: containers
    Executor(KindArgs<element::ExecutorFlagsOfCreate>),
    /// Networks
    Network(KindArgs<element::SettingFlags>),
    /// Destinations of output
    Log(KindArgs<element::SettingFlags>),
    /// List elements of all kinds
    #[command(visible_alias = "list")]
    Ls(element::ListArgs),
    Show(element::ShowArgs),
    Rm(element::RemoveArgs),
    Update(element::UpdateArgs),
    Export(element::ExportArgs),
    Import(element::ImportArgs),
    Cp(copy::CopyArgs),
    Run(Box<task::run::RunArgs>),
    Compose(compose::ComposeArgs),
    Diego(diego::DiegoArgs),
    Ps(task::ps::PsArgs),
    Logs(task::logs::LogsArgs),
    Exec(task::exec::ExecArgs),
    Attach(task::attach::AttachArgs),
    Wait(task::wait::WaitArgs),
    Kill(task::interrupt::KillArgs),
    Stop(task::interrupt::StopArgs),
    /// Freeze an executor
    Pause(task::interrupt::PauseArgs),
    /// Thaw an executor
    Resume(task::interrupt::PauseArgs),
    Serve(serve::ServeArgs),
    Events(node::events::EventsArgs),
    History(node::history::HistoryArgs),
    Inspect(node::inspect::InspectArgs),
    Verify(node::verify::VerifyArgs),
    Audit(node::audit::AuditArgs),
    Ledger(node::ledger::LedgerArgs),
    Engine(node::engine::EngineArgs),
    Info(node::info::InfoArgs),
    Version(node::version::VersionArgs),
    Config(config::ConfigArgs),
    Completion(completion::CompletionArgs),
}

/// Parses the arguments, runs the command and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return refuse(&refused),
    };
    let debug = cli.global.debug;
    match execute(cli) {
        Ok(exit) => exit.into(),
        // As if the signal had ended us: 128 + SIGPIPE.
        Err(failure) if failure.is_broken_pipe() => ExitCode::from(128 + 13),
        Err(failure) => {
            output::failure(&failure.text(debug));
            ExitCode::from(failure.code())
        }
    }
}

/// Shows help or what is wrong with the arguments. Of commands that mirror a task, 2 would be the task's.
fn refuse(refused: &clap::Error) -> ExitCode {
    // Nothing better can be done where nobody reads.
    let _ = refused.print();
    if !refused.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let mirrors = Cli::command()
        .ignore_errors(true)
        .try_get_matches()
        .ok()
        .and_then(|matches| matches.subcommand_name().map(str::to_owned))
        .is_some_and(|name| ["run", "exec", "attach", "wait"].contains(&name.as_str()));
    ExitCode::from(if mirrors { failure::OWN_FAILURE } else { 2 })
}

/// Nothing sends spans.
#[cfg(not(feature = "otel"))]
type Spans = std::convert::Infallible;

/// Logs go to standard error; `RUST_LOG` says which. Spans go to the collector at `endpoint`, for as long as what is
/// returned lives. Must be called in a tokio runtime.
fn start_logging(default: &str, endpoint: Option<&str>) -> Result<Option<Spans>, Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // It would be told on standard error, whose end is the only reason for one.
        .log_internal_errors(false)
        .with_filter(filter);
    let logs = tracing_subscriber::registry().with(text);
    // Without the feature a configuration with an endpoint is refused.
    #[cfg(not(feature = "otel"))]
    let _ = endpoint;
    #[cfg(feature = "otel")]
    if let Some(endpoint) = endpoint {
        let spans = Spans::start(endpoint)
            .map_err(|error| Failure::new(portlayer::error::ErrorKind::InvalidArgument, error))?;
        logs.with(spans.layer()).init();
        return Ok(Some(spans));
    }
    logs.init();
    Ok(None)
}

fn execute(cli: Cli) -> Outcome {
    let global = cli.global;
    let flags = Flags {
        config: global.config,
        data_dir: global.data_dir,
        socket: global.socket,
        embedded: global.embedded,
    };
    let color = global.color.decide(
        |name| std::env::var(name).ok(),
        std::io::stdout().is_terminal(),
    );
    let context = || -> Result<Context, Failure> {
        let loaded = settings::load(&flags, &Environment::of_process())?;
        Ok(Context::new(loaded, color, global.progress))
    };
    match cli.command {
        // These need neither daemon nor node.
        Command::Config(args) => config::run(&args, &context()?),
        Command::Completion(args) => completion::run(&args),
        command => {
            let serves = matches!(command, Command::Serve(_));
            let logged = if global.debug {
                "portlayer=debug,warn"
            } else if serves {
                "portlayer=info,warn"
            } else {
                "off"
            };
            let context = context()?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let outcome = {
                // What is left of the spans is sent while there is a runtime.
                let _spans = {
                    let _entered = runtime.enter();
                    let endpoint = context.config().trace.endpoint.as_deref();
                    start_logging(logged, endpoint.filter(|_| serves))?
                };
                runtime.block_on(on_node(command, &context))
            };
            // A thread may still wait for standard input; nothing is left to wait for.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn on_node(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Image(args) => element::of_kind(Kind::Image, args, context).await,
        Command::Volume(args) => element::of_kind(Kind::Volume, args, context).await,
        Command::Task(args) => element::of_kind(Kind::Task, args, context).await,
        Command::Executor(args) => element::of_kind(Kind::Executor, args, context).await,
        Command::Network(args) => element::of_kind(Kind::Network, args, context).await,
        Command::Log(args) => element::of_kind(Kind::Log, args, context).await,
        Command::Ls(args) => element::list(args, context).await,
        Command::Show(args) => element::show(args, context).await,
        Command::Rm(args) => element::remove(args, context).await,
        Command::Update(args) => element::update(args, context).await,
        Command::Export(args) => element::export(args, context).await,
        Command::Import(args) => element::import(args, context).await,
        Command::Cp(args) => copy::run(args, context).await,
        Command::Run(args) => task::run::run(*args, context)
            .await
            .map_err(Failure::of_own),
        Command::Compose(args) => compose::run(args, context).await,
        Command::Diego(args) => diego::run(args, context).await,
        Command::Ps(args) => task::ps::run(args, context).await,
        Command::Logs(args) => task::logs::run(args, context).await,
        Command::Exec(args) => task::exec::run(args, context)
            .await
            .map_err(Failure::of_own),
        Command::Attach(args) => task::attach::run(args, context)
            .await
            .map_err(Failure::of_own),
        Command::Wait(args) => task::wait::run(args, context)
            .await
            .map_err(Failure::of_own),
        Command::Kill(args) => task::interrupt::kill(args, context).await,
        Command::Stop(args) => task::interrupt::stop(args, context).await,
        Command::Pause(args) => task::interrupt::pause(args, context).await,
        Command::Resume(args) => task::interrupt::resume(args, context).await,
        Command::Serve(_) => serve::run(context).await,
        Command::Events(args) => node::events::run(args, context).await,
        Command::History(args) => node::history::run(args, context).await,
        Command::Inspect(args) => node::inspect::run(args, context).await,
        Command::Verify(args) => node::verify::run(args, context).await,
        Command::Audit(args) => node::audit::run(args, context).await,
        Command::Ledger(args) => node::ledger::run(args, context).await,
        Command::Engine(args) => node::engine::run(args, context).await,
        Command::Info(args) => node::info::run(args, context).await,
        Command::Version(args) => node::version::run(args, context).await,
        Command::Config(_) | Command::Completion(_) => Ok(failure::Exit::OK),
    }
}
