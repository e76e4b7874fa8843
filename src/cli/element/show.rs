//! `show`: one or more elements in full.

use std::net::IpAddr;

use clap::Args;
use portlayer::element::{Body, ElementId, Kind, ListQuery, MAX_PAGE};
use portlayer::network::Published;
use portlayer_client::Client;

use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::rows;

/// Show one or more in full
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Show what keeps executors apart from the host instead
    #[arg(long)]
    security: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The executors on a network, with the addresses and ports each has of it.
async fn members(client: &Client, network: &ElementId) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut query = ListQuery {
        kind: Some(Kind::Executor),
        limit: MAX_PAGE,
        hidden: true,
        ..ListQuery::default()
    };
    let mut lines = Vec::new();
    loop {
        let page = client.list(query.clone()).await?;
        for element in page.items {
            let Body::Executor(body) = &element.body else {
                continue;
            };
            let composition = &body.composition;
            let lease = composition
                .lease
                .as_ref()
                .filter(|lease| lease.network == *network);
            if lease.is_none() && !composition.joined.contains_key(network) {
                continue;
            }
            let name = if lines.is_empty() { "members" } else { "" };
            let mut text = format!("{} {}", element.id, element.state.as_str());
            if let Some(lease) = lease {
                text.extend(lease.v4.map(|v4| format!(" {v4}")));
                text.extend(lease.v6.map(|v6| format!(" {v6}")));
                text.extend(lease.ports.iter().map(port));
            }
            lines.push((name.to_owned(), text.into_bytes()));
        }
        if page.next.is_none() {
            return Ok(lines);
        }
        query.page = page.next;
    }
}

fn port(port: &Published) -> String {
    let at = match port.host_address {
        Some(IpAddr::V6(v6)) => format!("[{v6}]:"),
        Some(v4) => format!("{v4}:"),
        None => String::new(),
    };
    let (host_port, inside, protocol) = (port.host_port, port.port, port.protocol.as_str());
    format!(" {at}{host_port}->{inside}/{protocol}")
}

pub(crate) async fn run(kind: Option<Kind>, args: ShowArgs, context: &Context) -> Outcome {
    let ids = usage(context.names().await?.of(kind, &args.ids))?;
    let out = context.out(args.output);
    context
        .with_client(async |client| {
            for id in &ids {
                if args.security {
                    let security = client.security(id).await?;
                    out.one(&security, id.as_str(), &rows::security(&security))?;
                    continue;
                }
                let element = client.read(id).await?;
                let mut lines = rows::details(&element);
                if id.kind() == Kind::Network {
                    lines.extend(members(client, id).await?);
                }
                out.one(&element, id.as_str(), &lines)?;
            }
            Ok(Exit::OK)
        })
        .await
}
