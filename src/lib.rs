//! portlayer on one node: configuration, assembly and the command line over [`portlayer`] and its containerd runtime.
//!
//! A scheduler that embeds the port layer needs [`config::Config`], [`open`] and what is in [`portlayer`].
//!
//! One task, from an image archive to its exit:
//!
//! ```no_run
//! use portlayer::compose::JoinHow;
//! use portlayer::element::{ElementId, ImageSpec, NewElement, Spec};
//! use portlayer::task::TaskSpec;
//! use portlayer_node::config::Config;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let node = portlayer_node::open(&Config::new("/var/lib/portlayer")).await?;
//! let layer = node.port_layer.with_actor("scheduler");
//!
//! let image: ElementId = "image://images/busybox".parse()?;
//! let archive = tokio::fs::File::open("busybox.tar").await?;
//! layer.create(NewElement::new(image.clone(), Spec::Image(ImageSpec::default())).data(archive)).await?;
//! let task: ElementId = "task://tasks/hello".parse()?;
//! let spec = TaskSpec { argv: vec!["/bin/echo".into(), "hello".into()], ..TaskSpec::default() };
//! layer.create(NewElement::new(task.clone(), Spec::Task(Box::new(spec)))).await?;
//! let executor: ElementId = "executor://executors/x1".parse()?;
//! layer.create(NewElement::new(executor.clone(), Spec::Executor(Box::default()))).await?;
//!
//! // Edits of a value; only commit acts.
//! let handle = layer.composed(&executor, [(&image, JoinHow::root()), (&task, JoinHow::Task)]).await?;
//! layer.commit(handle).await?;
//!
//! let exit = layer.wait(&executor, &task, None).await?;
//! assert_eq!(exit.code, Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! `docs/examples/library.rs` is the same with a volume, events, the output and the deletion of it all; the files with
//! numbers beside it are the fourteen workflows that the port layer was specified by. All of them are programs
//! (`cargo run --example library`, as root) and the tests run their code.

pub mod config;
pub mod diego;
pub mod memory;
mod metrics;
mod node;
pub mod pull;
pub mod server;
#[cfg(feature = "otel")]
pub mod trace;

pub use node::{CloseError, LocationFault, Node, OpenError, clean, open, open_with};
