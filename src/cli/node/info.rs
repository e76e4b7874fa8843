//! `portlayer info`: what this node is and can do, how it is, and how we came to it.

use std::collections::BTreeMap;

use clap::Args;
use portlayer::element::Kind;
use portlayer_client::Client;
use portlayer_client::node::{Diagnostics, NodeInfo};
use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::rows;

/// Show the node: the daemon or this process, its health, the engine, the locations and how many elements there are
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Info {
    #[serde(flatten)]
    node: NodeInfo,
    /// `daemon`, or `embedded`: opened by this command.
    mode: &'static str,
    /// Where the daemon was reached.
    endpoint: String,
    /// As grpc.health.v1 tells it.
    health: &'static str,
    process: Diagnostics,
    /// The counts, of every kind.
    elements: BTreeMap<Kind, u64>,
}

pub(crate) async fn run(args: InfoArgs, context: &Context) -> Outcome {
    let daemon = context.daemon().await?.is_some();
    context
        .with_client(async |client| {
            let mut node = client.info(true).await?;
            let counts = std::mem::take(&mut node.counts);
            let count = |kind| (kind, counts.get(&kind).copied().unwrap_or(0));
            let info = Info {
                mode: if daemon { "daemon" } else { "embedded" },
                endpoint: client.endpoint().to_owned(),
                health: health(client).await?,
                process: client.diagnostics().await?,
                elements: Kind::ALL.into_iter().map(count).collect(),
                node,
            };
            context
                .out(args.output)
                .one(&info, &info.node.version, &lines(&info))?;
            Ok(Exit::OK)
        })
        .await
}

/// What the health service says of the daemon as a whole.
async fn health(client: &Client) -> Result<&'static str, Failure> {
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(client.channel()).check(request).await;
    let status = answer
        .map_err(portlayer_client::Error::from)?
        .into_inner()
        .status();
    Ok(match status {
        ServingStatus::Serving => "serving",
        ServingStatus::NotServing => "not serving",
        ServingStatus::Unknown | ServingStatus::ServiceUnknown => "unknown",
    })
}

fn lines(info: &Info) -> Vec<(String, Vec<u8>)> {
    let (node, engine) = (&info.node, &info.node.engine);
    let live_attach = if engine.live_attach { "yes" } else { "no" };
    let mut lines: Vec<(String, Vec<u8>)> = [
        ("version", node.version.clone()),
        ("mode", format!("{} ({})", info.mode, info.endpoint)),
        ("health", info.health.to_owned()),
        ("process", process(&info.process)),
        ("data", node.data_dir.display().to_string()),
        ("engine", engine.engine.clone()),
        ("oci runtime", engine.oci_runtime.clone()),
        ("kernel", engine.kernel.clone()),
        ("cgroups", engine.cgroups.clone()),
        ("snapshotter", engine.snapshotter.clone()),
        ("namespace", engine.namespace.clone()),
        ("live attach", live_attach.to_owned()),
        ("events", node.last_sequence.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into();
    let isolation = &engine.isolation;
    for (name, value) in [
        ("user ids", isolation.ids.as_str()),
        ("disk limits", isolation.disk.as_str()),
        ("apparmor", isolation.apparmor.as_deref().unwrap_or("none")),
    ] {
        lines.push((name.to_owned(), value.into()));
    }
    for warning in &engine.warnings {
        lines.push(("warning".to_owned(), warning.clone().into()));
    }
    let mut name = "locations";
    for location in &node.locations {
        let kinds: Vec<_> = location.kinds.iter().map(|kind| kind.as_str()).collect();
        let text = format!("{} ({})", location.name, kinds.join(", "));
        lines.push((name.to_owned(), text.into()));
        name = "";
    }
    let mut name = "elements";
    for (kind, count) in &info.elements {
        lines.push((name.to_owned(), format!("{count} {kind}").into()));
        name = "";
    }
    lines
}

fn process(process: &Diagnostics) -> String {
    let state = if process.draining { ", draining" } else { "" };
    format!(
        "{} since {}, {}, {} calls, {} subscriptions{state}",
        process.pid,
        process.started,
        rows::bytes(process.memory_bytes),
        process.calls,
        process.subscriptions,
    )
}
