//! `portlayer serve`: the daemon.

use clap::Args;
use portlayer_node::server::{self, DaemonError};
use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use portlayer::error::ErrorKind;

/// Serve the port layer on a unix socket until SIGTERM or SIGINT; running tasks outlive it
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {}

pub(crate) async fn run(context: &Context) -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server::run(context.config(), stop).await?;
    Ok(Exit::OK)
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Open(error) => error.into(),
            DaemonError::Close(error) => error.into(),
            DaemonError::Listen(error) => Failure::new(ErrorKind::FailedPrecondition, error),
            DaemonError::Diego(error) => Failure::new(ErrorKind::FailedPrecondition, error),
            DaemonError::Serve(error) => Failure::new(ErrorKind::Internal, error),
        }
    }
}
