//! `portlayer ledger check|export|import`: the files of the ledger, without engine and daemon.

use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use portlayer::ledger::{ExportError, ImportError, Ledger};

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome, refused};
use crate::cli::output::{self, OutputArgs};

/// The ledger's files, while no daemon has them open: needs --data-dir and no engine
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check every sum, chain and link, as verify does; 12 when something is wrong
    Check {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write it as JSON lines (records, audit rows, events; not the bytes of images and volumes) to standard output or a
    /// new file
    Export {
        /// The file
        #[arg(short = 'O', long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Fill an empty ledger with what export wrote
    Import {
        /// The file, or - for standard input
        file: PathBuf,
    },
}

pub(crate) async fn run(args: LedgerArgs, context: &Context) -> Outcome {
    match args.verb {
        Verb::Check { output } => check(output, context).await,
        Verb::Export { to } => export(to, context).await,
        Verb::Import { file } => import(file, context).await,
    }
}

async fn check(output: OutputArgs, context: &Context) -> Outcome {
    let ledger = super::open_ledger(context).await?;
    let report = tokio::task::spawn_blocking(move || ledger.verify()).await;
    let report = report.map_err(std::io::Error::other)?.map_err(refused)?;
    super::verify::show(&report, context.out(output))
}

async fn export(to: Option<PathBuf>, context: &Context) -> Outcome {
    let ledger = super::open_ledger(context).await?;
    let out: Box<dyn Write + Send> = match &to {
        Some(path) => Box::new(BufWriter::new(std::fs::File::create_new(path).map_err(
            |error| Failure::from(error).context(format!("creating {} failed", path.display())),
        )?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    match ledger.export(out).await {
        Ok(lines) => {
            output::note(&format!("exported {lines} lines"));
            Ok(Exit::OK)
        }
        Err(ExportError::Ledger(error)) => Err(refused(error)),
        Err(error) => Err(Failure::new(portlayer::error::ErrorKind::Internal, error)),
    }
}

async fn import(file: PathBuf, context: &Context) -> Outcome {
    let config = super::ledger_config(context);
    let imported = tokio::task::spawn_blocking(move || -> Result<(), Failure> {
        let ledger = if file.as_os_str() == "-" {
            Ledger::import(&config, std::io::stdin().lock())
        } else {
            let opened = std::fs::File::open(&file).map_err(|error| {
                Failure::from(error).context(format!("opening {} failed", file.display()))
            })?;
            Ledger::import(&config, BufReader::new(opened))
        };
        match ledger {
            Ok(_) => Ok(()),
            Err(ImportError::Ledger(error)) => Err(refused(error)),
            Err(error) => Err(Failure::new(
                portlayer::error::ErrorKind::InvalidArgument,
                error,
            )),
        }
    });
    imported.await.map_err(std::io::Error::other)??;
    Ok(Exit::OK)
}
