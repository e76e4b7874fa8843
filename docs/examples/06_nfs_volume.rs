//! Workflow 6: a volume on an NFS server.
//!
//! ```text
//! cargo run --example 06_nfs_volume      (as root)
//! ```
//!
//! Not every machine has an NFS server, so the example's location `nfs` has its export mounted already: a directory of
//! this machine stands in for it. The location `away` is a server that nobody answers for.
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::element::{Descriptor, ElementId, NewElement, Spec, VolumeSpec};
use portlayer::error::{CreateError, LocationError};
use portlayer::store::StoreError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `volume://nfs/shared`, and shows that a server that is away takes down only its own location.
pub(crate) async fn workflow(node: &Node) -> Result<Descriptor> {
    let layer = &node.port_layer;
    let volume = |id: &str| -> Result<NewElement> {
        Ok(NewElement::new(
            id.parse::<ElementId>()?,
            Spec::Volume(VolumeSpec::default()),
        ))
    };
    match layer.create(volume("volume://away/shared")?).await {
        Err(
            error @ (CreateError::Location(LocationError::Unavailable { .. })
            | CreateError::Store {
                source: StoreError::Unavailable(_),
                ..
            }),
        ) => println!("refused: {error}"),
        other => bail!("a volume was made on a server that is away: {other:?}"),
    }
    // On the server: `volumes/<digest>` with the files, `volumes_metadata/<digest>` for who looks at it there.
    let made = layer.create(volume("volume://nfs/shared")?).await?;
    println!("created {}", made.id);
    Ok(made)
}
