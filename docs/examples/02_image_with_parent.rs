//! Workflow 2: an image on top of another one.
//!
//! ```text
//! cargo run --example 02_image_with_parent      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use std::io::Cursor;

use anyhow::{Result, bail};
use portlayer::archive::TarBuilder;
use portlayer::element::{Descriptor, ElementId, ImageSpec, NewElement, Spec};
use portlayer::error::{CreateError, DeleteError};
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `image://images/app`, one layer on top of `image://images/busybox`, and returns both.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, Descriptor)> {
    let layer = &node.port_layer;
    let base = stage::busybox(node).await?;
    // The data is only what is new: with a parent it is one layer, applied to the parent's file system.
    let tar = TarBuilder::new()
        .dir("app", 0o755)
        .file("app/run", 0o755, b"#!/bin/sh\necho the app\n")
        .finish();
    let app = |parent: &ElementId| -> Result<NewElement> {
        let id = "image://images/app".parse()?;
        Ok(NewElement::new(id, Spec::Image(ImageSpec::default()))
            .parent(parent.clone())
            .data(Cursor::new(tar.clone())))
    };

    let missing: ElementId = "image://images/missing".parse()?;
    match layer.create(app(&missing)?).await {
        Err(CreateError::UnknownParent { parent, .. }) => println!("refused: there is no {parent}"),
        other => bail!("an unknown parent was taken: {other:?}"),
    }

    let made = layer.create(app(&base)?).await?;
    println!("created {} on top of {base}", made.id);

    // The parent has learned of it (event `inherited`) and stays as long as it is needed.
    match layer.delete(&base).await {
        Err(DeleteError::InUse { id, by }) => println!("refused: {id} is needed by {by:?}"),
        other => bail!("a parent was deleted: {other:?}"),
    }
    Ok((base, made))
}
