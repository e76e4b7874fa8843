//! Questions about the node over the wire.

use portlayer::AuditReport;
use portlayer::element::ElementId;
use portlayer::ledger::Report;
use portlayer::task::ExitRecord;
use portlayer_proto::v1;
use portlayer_proto::v1::node_service_client::NodeServiceClient;
use tonic::transport::Channel;

use crate::connection::ANSWER_BYTES;
use crate::node::{Diagnostics, NodeInfo, Swept};
use crate::wire::{self, Wire};
use crate::{Client, Error};

fn service(channel: Channel) -> NodeServiceClient<Channel> {
    NodeServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

impl Client {
    /// What the node is; with `count` also how many elements there are.
    pub async fn info(&self, count: bool) -> Result<NodeInfo, Error> {
        let message = v1::InfoRequest { count };
        let call = |channel| async move { service(channel).info(message).await };
        Ok(NodeInfo::from_wire(self.look("info", call).await?)?)
    }

    /// The process that serves the node and where its things are.
    pub async fn diagnostics(&self) -> Result<Diagnostics, Error> {
        let message = v1::DiagnosticsRequest {};
        let call = |channel| async move { service(channel).diagnostics(message).await };
        let answer = self.look("diagnostics", call).await?;
        Ok(Diagnostics::from_wire(answer)?)
    }

    /// Reads and checks the whole ledger. See [`portlayer::PortLayer::verify`].
    pub async fn verify(&self) -> Result<Report, Error> {
        let message = v1::VerifyRequest {};
        let call = |channel| async move { service(channel).verify(message).await };
        Ok(Report::from_wire(self.watch("verify", call).await?)?)
    }

    /// Everything of ours that is there, with its owner. See [`portlayer::PortLayer::audit`].
    pub async fn audit(&self) -> Result<AuditReport, Error> {
        let message = v1::AuditRequest {};
        let call = |channel| async move { service(channel).audit(message).await };
        Ok(AuditReport::from_wire(self.watch("audit", call).await?)?)
    }

    /// The exit records of an executor, or of one task in it. See [`portlayer::PortLayer::exits`].
    pub async fn exits(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
    ) -> Result<Vec<ExitRecord>, Error> {
        let message = v1::ExitsRequest {
            executor: executor.to_string(),
            task: task.map(ToString::to_string),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).exits(message).await }
        };
        let answer = self.look("exits", call).await?;
        Ok(wire::all("exits", answer.exits)?)
    }

    /// Removes bytes no record owns. See [`portlayer::PortLayer::sweep`].
    pub async fn sweep(&self) -> Result<Vec<Swept>, Error> {
        let mut service = service(self.channel());
        let answer = self
            .act("sweep", service.sweep(v1::SweepRequest {}))
            .await?;
        Ok(wire::all("swept", answer.swept)?)
    }

    /// Waits until every container whose tasks have ended is taken down. See [`portlayer::PortLayer::settle`].
    pub async fn settle(&self) -> Result<(), Error> {
        let message = v1::SettleRequest {};
        let call = |channel| async move { service(channel).settle(message).await };
        self.watch("settle", call).await?;
        Ok(())
    }
}
