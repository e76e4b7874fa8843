//! Workflow 1: an image with no parent, from a tar of its root file system.
//!
//! ```text
//! cargo run --example 01_image_from_scratch      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use std::io::Cursor;

use anyhow::{Result, ensure};
use portlayer::element::{Checksum, Descriptor, ElementId, ImageSpec, NewElement, Spec};
use portlayer::error::CreateError;
use portlayer::store::StoreError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `image://images/base` and shows what the two usual mistakes get.
pub(crate) async fn workflow(node: &Node) -> Result<Descriptor> {
    let layer = &node.port_layer;
    let id: ElementId = "image://images/base".parse()?;
    // The data stream of an image is a layer tar, an OCI archive or a docker archive; plain, gzip or zstd.
    let tar = stage::busybox_tar()?;
    let sum = Checksum::of(&tar);
    let image = |sum: Checksum| {
        NewElement::new(id.clone(), Spec::Image(ImageSpec::default()))
            .data(Cursor::new(tar.clone()))
            .checksum(sum)
            // Never changes again.
            .ro("built-by", "the example")
            // May be patched by `update`.
            .rw("stage", "testing")
    };

    // The sum is that of the data stream, byte for byte. With another one nothing is made.
    let wrong = layer.create(image(Checksum::of(b"something else"))).await;
    let Err(CreateError::Store {
        source: StoreError::ChecksumMismatch { expected, actual },
        ..
    }) = wrong
    else {
        anyhow::bail!("a wrong checksum was taken: {wrong:?}");
    };
    println!("refused: expected {expected}, but the data has {actual}");

    let made = layer.create(image(sum)).await?;
    println!("created {} with {} bytes, {}", made.id, made.size, sum);

    // Create is not idempotent, but its answer tells whether what is there is the same.
    let again = layer.create(image(sum)).await;
    let Err(CreateError::AlreadyExists { checksum, .. }) = again else {
        anyhow::bail!("the image was created twice: {again:?}");
    };
    ensure!(checksum == Some(sum), "what is there has another checksum");
    println!("refused: it is there already, with the same checksum");
    Ok(made)
}
