//! A node in this process, served to a client of its own over a pipe in memory: commands meet the very server the
//! daemon has.

use std::sync::Arc;

use portlayer::PortLayer;
use portlayer::element::{Kind, ListQuery};
use portlayer_client::Client;
use portlayer_node::Node;
use portlayer_node::config::Config;
use portlayer_node::diego::Diego;
use portlayer_node::server::{Access, Facts, Server};

use super::failure::{Failure, refused};
use super::filter;

/// An open node, its server and the client.
pub(crate) struct Embedded {
    client: Client,
    /// Opened only by commands about Diego's tasks.
    diego: Arc<Diego>,
    server: Server,
    node: Node,
}

impl Embedded {
    /// Opens the node and serves it. The audit log names the user who called.
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        let node = open_node(config).await?;
        let facts = Facts::of(config, &node);
        let diego = Arc::new(Diego::of(config, &node));
        let layer = node.port_layer.clone();
        let server = Server::with_diego(layer, facts, Access::own(), diego.clone());
        let client = server.client().await?;
        Ok(Self {
            client,
            diego,
            server,
            node,
        })
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Ends a private engine nothing runs in; one in which something runs is left for the next command.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let Self {
            client,
            diego,
            server,
            node,
        } = self;
        drop(client);
        // Nobody else runs them.
        diego.idle().await;
        diego.close().await;
        server.drain();
        drop((server, diego));
        let idle = is_idle(&node.port_layer).await?;
        if idle {
            node.halt().await?;
        } else {
            node.close().await?;
        }
        Ok(())
    }
}

/// Opens the node alone, for commands about its engine.
pub(crate) async fn open_node(config: &Config) -> Result<Node, Failure> {
    Ok(portlayer_node::open(config).await?)
}

/// Whether no executor runs.
pub(crate) async fn is_idle(layer: &PortLayer) -> Result<bool, Failure> {
    let query = ListQuery {
        filters: ["running", "paused"]
            .map(|state| filter::equals("state", state))
            .to_vec(),
        kind: Some(Kind::Executor),
        limit: 1,
        hidden: true,
        ..ListQuery::default()
    };
    let page = layer.list(query).await.map_err(refused)?;
    Ok(page.items.is_empty())
}
