//! `portlayer info`: what this node is and can do.

use std::collections::BTreeMap;

use clap::Args;
use portlayer::element::{Kind, ListQuery, MAX_PAGE};
use portlayer::runtime::RuntimeInfo;
use portlayer_node::config::LocationConfig;
use serde::Serialize;

use crate::cli::context::{Context, OpenNode};
use crate::cli::failure::{Exit, Failure, Outcome, fail};
use crate::cli::output::OutputArgs;

/// Show the engine, the locations and how many elements there are
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Info<'a> {
    version: &'static str,
    data_dir: &'a std::path::Path,
    engine: RuntimeInfo,
    locations: &'a [LocationConfig],
    elements: BTreeMap<Kind, usize>,
}

pub(crate) async fn run(args: InfoArgs, context: &Context) -> Outcome {
    let config = context.config();
    context
        .with_node(async |node| {
            let info = Info {
                version: env!("CARGO_PKG_VERSION"),
                data_dir: &config.data_dir,
                engine: node.runtime_info().await?,
                locations: &config.locations,
                elements: count(node).await?,
            };
            context
                .out(args.output)
                .one(&info, info.version, &lines(&info))?;
            Ok(Exit::OK)
        })
        .await
}

async fn count(node: &OpenNode) -> Result<BTreeMap<Kind, usize>, Failure> {
    let mut counts = BTreeMap::new();
    for kind in Kind::ALL {
        let mut query = ListQuery {
            kind: Some(kind),
            limit: MAX_PAGE,
            hidden: true,
            projection: portlayer::element::Projection::without_metadata(),
            ..ListQuery::default()
        };
        loop {
            let page = node.layer().list(query.clone()).await.map_err(fail)?;
            *counts.entry(kind).or_insert(0) += page.items.len();
            if page.next.is_none() {
                break;
            }
            query.page = page.next;
        }
    }
    Ok(counts)
}

fn lines(info: &Info<'_>) -> Vec<(String, Vec<u8>)> {
    let engine = &info.engine;
    let mut lines: Vec<(String, Vec<u8>)> = [
        ("version", info.version.to_owned()),
        ("data", info.data_dir.display().to_string()),
        ("engine", engine.engine.clone()),
        ("oci runtime", engine.oci_runtime.clone()),
        ("kernel", engine.kernel.clone()),
        ("cgroups", engine.cgroups.clone()),
        ("snapshotter", engine.snapshotter.clone()),
        ("namespace", engine.namespace.clone()),
        (
            "live attach",
            if engine.live_attach { "yes" } else { "no" }.to_owned(),
        ),
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
    for location in info.locations {
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
