//! Workflow 4: an empty volume.
//!
//! ```text
//! cargo run --example 04_fresh_volume      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::element::{Descriptor, ElementId, NewElement, Spec, VolumeSpec};
use portlayer::error::CreateError;
use portlayer::store::StoreError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `volume://volumes/data` with at least 1 GiB to write.
pub(crate) async fn workflow(node: &Node) -> Result<Descriptor> {
    let layer = &node.port_layer;
    let id: ElementId = "volume://volumes/data".parse()?;
    let volume = |freespace_bytes: u64| {
        let spec = VolumeSpec {
            freespace_bytes,
            ..VolumeSpec::default()
        };
        NewElement::new(id.clone(), Spec::Volume(spec)).rw("team", "storage")
    };

    // Free space is checked against the location before anything is made.
    match layer.create(volume(1 << 60)).await {
        Err(CreateError::Store {
            source:
                StoreError::InsufficientSpace {
                    need_bytes,
                    have_bytes,
                },
            ..
        }) => {
            println!("refused: {need_bytes} bytes are needed, {have_bytes} are there");
        }
        other => bail!("an exbibyte was promised: {other:?}"),
    }

    let made = layer.create(volume(1 << 30)).await?;
    println!("created {}, empty, mode 0755", made.id);
    Ok(made)
}
