//! Workflow 7: an NFS volume from a parent, which is an error.
//!
//! ```text
//! cargo run --example 07_nfs_volume_from_parent      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::element::{ElementId, NewElement, Spec, VolumeSpec};
use portlayer::error::CreateError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Tries to make `volume://nfs/seeded` from an image, and returns both ids.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, ElementId)> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let id: ElementId = "volume://nfs/seeded".parse()?;
    let new =
        NewElement::new(id.clone(), Spec::Volume(VolumeSpec::default())).parent(image.clone());
    match layer.create(new).await {
        Err(CreateError::InvalidParent { parent, reason, .. }) => {
            println!("refused: {parent}: {reason}")
        }
        other => bail!("an NFS volume was made from a parent: {other:?}"),
    }
    Ok((image, id))
}
