//! Makes an OCI image layout from a static busybox, without any registry:
//!
//! ```sh
//! cargo run --example busybox_layout -- /bin/busybox /tmp/busybox
//! portlayer image create busybox --from /tmp/busybox
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result};
use portlayer_runtime::layout;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let usage = "usage: busybox_layout BUSYBOX DIRECTORY";
    let binary = arguments.next().context(usage)?;
    let directory = arguments.next().context(usage)?;
    let image = layout::busybox(&binary)
        .with_context(|| format!("making an image of {}", binary.display()))?;
    image
        .write_layout(&directory)
        .with_context(|| format!("writing {}", directory.display()))
}
