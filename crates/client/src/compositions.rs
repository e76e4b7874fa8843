//! Composition over the wire. A handle is a value of the caller's; every call sends it and gets it back edited.

use bytes::Bytes;
use portlayer::compose::{BindHow, Handle, JoinHow, Plan, Security};
use portlayer::element::ElementId;
use portlayer_proto::v1;
use portlayer_proto::v1::compositions_service_client::CompositionsServiceClient;
use tonic::transport::Channel;

use crate::compose::Committed;
use crate::connection::ANSWER_BYTES;
use crate::wire::{self, Wire, WireError};
use crate::{Client, Error};

fn service(channel: Channel) -> CompositionsServiceClient<Channel> {
    CompositionsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

fn handle(token: &[u8]) -> Result<Handle, Error> {
    let read = Handle::from_token(token);
    read.map_err(|_| {
        Error::Answer(WireError::Invalid {
            field: "handle".to_owned(),
            rule: "it cannot be read",
        })
    })
}

fn token(handle: &Handle) -> Bytes {
    handle.to_token().into()
}

impl Client {
    /// Opens a handle on an executor as it is now. See [`portlayer::PortLayer::compose`].
    pub async fn compose(&self, executor: &ElementId) -> Result<Handle, Error> {
        let message = v1::OpenRequest {
            executor: executor.to_string(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).open(message).await }
        };
        handle(&self.look("open", call).await?.handle)
    }

    /// Lets an element take part in a role. See [`portlayer::PortLayer::join`].
    pub async fn join(
        &self,
        edited: Handle,
        id: &ElementId,
        how: JoinHow,
    ) -> Result<Handle, Error> {
        let message = v1::JoinRequest {
            handle: token(&edited),
            id: id.to_string(),
            how: Some(how.into_wire()),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).join(message).await }
        };
        handle(&self.look("join", call).await?.handle)
    }

    /// Activates what takes part; `None` = everything. See [`portlayer::PortLayer::bind`].
    pub async fn bind(
        &self,
        edited: Handle,
        id: Option<&ElementId>,
        how: BindHow,
    ) -> Result<Handle, Error> {
        let message = v1::BindRequest {
            handle: token(&edited),
            id: id.map(ToString::to_string),
            how: Some(how.into_wire()),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).bind(message).await }
        };
        handle(&self.look("bind", call).await?.handle)
    }

    /// Deactivates what takes part; `None` = everything. See [`portlayer::PortLayer::unbind`].
    pub async fn unbind(&self, edited: Handle, id: Option<&ElementId>) -> Result<Handle, Error> {
        let message = v1::UnbindRequest {
            handle: token(&edited),
            id: id.map(ToString::to_string),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).unbind(message).await }
        };
        handle(&self.look("unbind", call).await?.handle)
    }

    /// Ends an element's part. See [`portlayer::PortLayer::leave`].
    pub async fn leave(&self, edited: Handle, id: &ElementId) -> Result<Handle, Error> {
        let message = v1::LeaveRequest {
            handle: token(&edited),
            id: id.to_string(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).leave(message).await }
        };
        handle(&self.look("leave", call).await?.handle)
    }

    /// What commit would do now. See [`portlayer::PortLayer::plan`].
    pub async fn plan(&self, of: &Handle) -> Result<Plan, Error> {
        let message = v1::PlanRequest { handle: token(of) };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).plan(message).await }
        };
        Ok(Plan::from_wire(self.look("plan", call).await?)?)
    }

    /// What keeps an executor apart from the host. See [`portlayer::PortLayer::security`].
    pub async fn security(&self, executor: &ElementId) -> Result<Security, Error> {
        let message = v1::SecurityRequest {
            executor: executor.to_string(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).security(message).await }
        };
        let answer = self.look("security", call).await?;
        let read = serde_json::from_str(&answer.profile_json);
        read.map_err(|_| {
            Error::Answer(WireError::Invalid {
                field: "profile_json".to_owned(),
                rule: "it is no security profile",
            })
        })
    }

    /// Makes it so. See [`portlayer::PortLayer::commit`].
    pub async fn commit(&self, of: Handle) -> Result<Committed, Error> {
        let message = v1::CommitRequest { handle: token(&of) };
        let mut service = service(self.channel());
        let answer = self.act("commit", service.commit(message)).await?;
        Ok(wire::required("committed", answer.committed)?)
    }
}
