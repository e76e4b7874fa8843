//! Workflow 3: an image that is only a name and metadata for another one: a tag.
//!
//! ```text
//! cargo run --example 03_metadata_only_image      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::element::{Body, Descriptor, ElementId, ImageSpec, NewElement, Spec};
use portlayer::error::DeleteError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `image://images/tagged` from `image://images/busybox` without any data, and returns both.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, Descriptor)> {
    let layer = &node.port_layer;
    let app = stage::busybox(node).await?;
    // No data: the new image shares the parent's snapshot, so a hundred of them cost a hundred records.
    let new = NewElement::new(
        "image://images/tagged".parse()?,
        Spec::Image(ImageSpec::default()),
    )
    .parent(app.clone())
    .ro("version", "1.0")
    .rw("tag", "latest");
    let tagged = layer.create(new).await?;
    let Body::Image(body) = &tagged.body else {
        bail!("an image has the body of another kind")
    };
    println!(
        "created {}, which shares the snapshot of {app}: {}",
        tagged.id, body.metadata_only
    );

    match layer.delete(&app).await {
        Err(DeleteError::InUse { id, by }) => println!("refused: {id} is needed by {by:?}"),
        other => bail!("the image behind a tag was deleted: {other:?}"),
    }
    Ok((app, tagged))
}
