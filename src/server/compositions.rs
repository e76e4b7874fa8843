//! `portlayer.v1.CompositionsService`. It keeps nothing: handles are the callers'.

use bytes::Bytes;
use portlayer::compose::{CommitResult, Handle};
use portlayer_client::Committed;
use portlayer_client::wire::{self, Wire, status_of};
use portlayer_proto::v1;
use portlayer_proto::v1::compositions_service_server::CompositionsService;
use tonic::{Request, Response, Status};

use super::{bad, id_in, layer_of, optional_id_in, tell_revision};

pub(super) struct Compositions;

fn handle(token: &[u8]) -> Result<Handle, Status> {
    let handle = Handle::from_token(token).map_err(status_of)?;
    tracing::Span::current().record("id", handle.executor().as_str());
    tell_revision(handle.revision());
    Ok(handle)
}

fn token(handle: &Handle) -> Bytes {
    handle.to_token().into()
}

/// The answer about a commit.
pub(super) fn committed(result: CommitResult) -> v1::Committed {
    tell_revision(result.revision);
    Committed::from(result).into_wire()
}

#[tonic::async_trait]
impl CompositionsService for Compositions {
    async fn open(
        &self,
        request: Request<v1::OpenRequest>,
    ) -> Result<Response<v1::OpenResponse>, Status> {
        let layer = layer_of(&request)?;
        let executor = id_in("executor", &request.get_ref().executor)?;
        let handle = layer.compose(&executor).await.map_err(status_of)?;
        tell_revision(handle.revision());
        Ok(Response::new(v1::OpenResponse {
            handle: token(&handle),
        }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let edited = handle(&message.handle)?;
        let id = id_in("id", &message.id)?;
        let how = wire::join(message.how).map_err(bad)?;
        let edited = layer.join(edited, &id, how).await.map_err(status_of)?;
        Ok(Response::new(v1::JoinResponse {
            handle: token(&edited),
        }))
    }

    async fn bind(
        &self,
        request: Request<v1::BindRequest>,
    ) -> Result<Response<v1::BindResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let edited = handle(&message.handle)?;
        let id = optional_id_in("id", message.id.as_deref())?;
        let how = wire::bind(message.how).map_err(bad)?;
        let edited = layer.bind(edited, id.as_ref(), how).await;
        Ok(Response::new(v1::BindResponse {
            handle: token(&edited.map_err(status_of)?),
        }))
    }

    async fn unbind(
        &self,
        request: Request<v1::UnbindRequest>,
    ) -> Result<Response<v1::UnbindResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let edited = handle(&message.handle)?;
        let id = optional_id_in("id", message.id.as_deref())?;
        let edited = layer.unbind(edited, id.as_ref()).await;
        Ok(Response::new(v1::UnbindResponse {
            handle: token(&edited.map_err(status_of)?),
        }))
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let edited = handle(&message.handle)?;
        let id = id_in("id", &message.id)?;
        let edited = layer.leave(edited, &id).await.map_err(status_of)?;
        Ok(Response::new(v1::LeaveResponse {
            handle: token(&edited),
        }))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let layer = layer_of(&request)?;
        let handle = handle(&request.get_ref().handle)?;
        let plan = layer.plan(&handle).await.map_err(status_of)?;
        Ok(Response::new(plan.into_wire()))
    }

    async fn security(
        &self,
        request: Request<v1::SecurityRequest>,
    ) -> Result<Response<v1::SecurityResponse>, Status> {
        let layer = layer_of(&request)?;
        let executor = id_in("executor", &request.get_ref().executor)?;
        let profile = layer.security(&executor).await.map_err(status_of)?;
        let profile_json = serde_json::to_string(&profile);
        Ok(Response::new(v1::SecurityResponse {
            profile_json: profile_json.map_err(|error| Status::internal(error.to_string()))?,
        }))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitResponse>, Status> {
        let layer = layer_of(&request)?;
        let handle = handle(&request.get_ref().handle)?;
        let result = layer.commit(handle).await.map_err(status_of)?;
        Ok(Response::new(v1::CommitResponse {
            committed: Some(committed(result)),
        }))
    }
}
