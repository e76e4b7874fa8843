//! Workflow 12: finding images again.
//!
//! ```text
//! cargo run --example 12_list_images      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::PortLayer;
use portlayer::element::{ElementId, ImageSpec, ListQuery, NewElement, Spec};
use portlayer::error::ReadError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// The names that filters find among an image and three tags of it, one of which is hidden.
pub(crate) async fn workflow(node: &Node) -> Result<Vec<(String, Vec<String>)>> {
    let layer = &node.port_layer;
    let base = stage::busybox(node).await?;
    for (name, team, hidden) in [
        ("tools", "alpha", false),
        ("web", "beta", false),
        ("layer-3", "alpha", true),
    ] {
        let id = format!("image://images/{name}").parse::<ElementId>()?;
        let mut new = NewElement::new(id, Spec::Image(ImageSpec::default()))
            .parent(base.clone())
            .rw("team", team);
        // Infrastructure and untagged layers: there when needed, not in anybody's list.
        new.hidden = hidden;
        layer.create(new).await?;
    }

    // The language is containerd's: a comma is AND, several filters are OR.
    let questions: [&[&str]; 6] = [
        &["kind==image,labels.team==alpha"],
        &["kind==image,labels.team"],
        &["kind==image,rw.team~=^b"],
        &["parent==image://images/busybox"],
        &["id==image://images/web", "id==image://images/busybox"],
        &["kind==image,hidden==true"],
    ];
    let mut answers = Vec::new();
    for filters in questions {
        let names = names(layer, filters).await?;
        println!("{:55} {}", filters.join("  or  "), names.join(" "));
        answers.push((filters.join(" or "), names));
    }

    // What cannot be understood is never ignored: the error says where.
    match names(layer, &["kind==image,colour==red"]).await {
        Err(ReadError::InvalidFilter { at, reason }) => println!("refused: offset {at}: {reason}"),
        other => bail!("an unknown field was ignored: {other:?}"),
    }
    Ok(answers)
}

async fn names(layer: &PortLayer, filters: &[&str]) -> Result<Vec<String>, ReadError> {
    let query = ListQuery {
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        ..ListQuery::default()
    };
    let page = layer.list(query).await?;
    Ok(page
        .items
        .into_iter()
        .map(|element| element.id.name().to_owned())
        .collect())
}
