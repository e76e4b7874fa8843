//! Workflow 5: volumes that start with the content of an image or of another volume.
//!
//! ```text
//! cargo run --example 05_volume_from_parent      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::Result;
use portlayer::element::{Descriptor, ElementId, NewElement, Spec, VolumeSpec};
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes three volumes from `image://images/busybox`: a copy, a copy-on-write one, and a copy of the first copy.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, [Descriptor; 3])> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let volume = async |id: &str, parent: &ElementId| -> Result<Descriptor> {
        let new = NewElement::new(id.parse()?, Spec::Volume(VolumeSpec::default()))
            .parent(parent.clone());
        let made = layer.create(new).await?;
        println!("created {} from {parent}", made.id);
        Ok(made)
    };

    // A location that cannot share anything with the image store gets a copy.
    let seeded = volume("volume://volumes/seeded", &image).await?;
    // A location on the same snapshotter shares every file until it is written to.
    let cow = volume("volume://cow/seeded", &image).await?;
    // A volume may be the parent of another one while nobody has it bound.
    let copy = volume("volume://volumes/copy", &seeded.id).await?;
    Ok((image, [seeded, cow, copy]))
}
