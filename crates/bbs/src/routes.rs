//! The routes: `bbs:routes.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use portlayer_taskdef::diego::{
    ParseError, Settings, Task, TaskError, Tasks, desire_from_protobuf, task_to_protobuf,
    without_image_layers,
};
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::message as m;
use crate::watch;

/// The largest request: a definition of the largest size with its names.
const REQUEST_BYTES: usize = 2 << 20;

/// Types of errors that Diego's clients tell apart.
const UNKNOWN: i32 = 0;
const INVALID_REQUEST: i32 = 4;

pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Answers one request.
pub(crate) async fn answer(
    request: Request<Incoming>,
    tasks: &Tasks,
    stop: CancellationToken,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    // One old stream is asked for by GET.
    if request.method() != Method::POST && path != "/v1/events" {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        // Too large, or it broke off.
        Err(_) => return message(&failed(bad_request())),
    };
    match path.as_str() {
        "/v1/events/tasks.r1" | "/v1/events/tasks" => watch::stream(tasks.events(), stop),
        _ => call(&path, &body, tasks).await,
    }
}

async fn call(path: &str, body: &[u8], tasks: &Tasks) -> Response<Body> {
    match path {
        "/v1/ping" => message(&m::PingResponse { available: true }),
        "/v1/domains/list" => message(&m::DomainsResponse {
            error: None,
            domains: tasks.domains(),
        }),
        "/v1/domains/upsert" => message(&m::Answer {
            error: upsert(body, tasks).err(),
        }),
        "/v1/cells/list.r1" => message(&m::CellsResponse {
            error: None,
            cells: vec![cell(tasks.settings())],
        }),
        "/v1/tasks/desire.r2" => message(&m::Answer {
            error: desire(body, tasks).await.err(),
        }),
        "/v1/tasks/list.r3" => list(body, tasks, task_to_protobuf).await,
        "/v1/tasks/list.r2" => list(body, tasks, older).await,
        "/v1/tasks/get_by_task_guid.r3" => get(body, tasks, task_to_protobuf).await,
        "/v1/tasks/get_by_task_guid.r2" => get(body, tasks, older).await,
        "/v1/tasks/cancel" => {
            change(guid(body), |guid| async move { tasks.cancel(&guid).await }).await
        }
        "/v1/tasks/resolving" => {
            change(guid(body), |guid| async move { tasks.resolve(&guid).await }).await
        }
        "/v1/tasks/delete" => {
            change(guid(body), |guid| async move { tasks.delete(&guid).await }).await
        }
        // What a client may look for of long-running processes: there are none.
        path if path.starts_with("/v1/actual_lrp") || path.starts_with("/v1/desired_lrp") => {
            match path.contains("/list") || path.contains("scheduling_infos") {
                true => message(&m::Answer::default()),
                false => message(&failed(unsupported(path))),
            }
        }
        // Only cells call these of each other.
        "/v1/tasks/start" | "/v1/tasks/fail" | "/v1/tasks/reject" | "/v1/tasks/complete" => {
            message(&failed(unsupported(path)))
        }
        _ => plain(StatusCode::NOT_FOUND),
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Full::default().boxed());
    *answer.status_mut() = status;
    answer
}

/// Whatever the answer says, its status is 200.
fn message(message: &impl Message) -> Response<Body> {
    let body = Full::new(Bytes::from(message.encode_to_vec()));
    let mut answer = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/x-protobuf");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn failed(error: m::Error) -> m::Answer {
    m::Answer { error: Some(error) }
}

fn bad_request() -> m::Error {
    m::Error {
        kind: INVALID_REQUEST,
        message: "the request received is invalid".to_owned(),
    }
}

fn unsupported(path: &str) -> m::Error {
    m::Error {
        kind: UNKNOWN,
        message: format!("this node runs tasks only and has no {path}"),
    }
}

fn refused(error: &TaskError) -> m::Error {
    m::Error {
        kind: error.diego_type(),
        message: error.to_string(),
    }
}

fn invalid(field: &str) -> m::Error {
    m::Error {
        kind: INVALID_REQUEST,
        message: format!("Invalid field: {field}"),
    }
}

fn guid(body: &[u8]) -> Result<String, m::Error> {
    let request = m::GuidRequest::decode(body).map_err(|_| bad_request())?;
    match request.task_guid.is_empty() {
        true => Err(invalid("task_guid")),
        false => Ok(request.task_guid),
    }
}

async fn change<F>(
    guid: Result<String, m::Error>,
    change: impl FnOnce(String) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<(), TaskError>>,
{
    let error = match guid {
        Ok(guid) => change(guid).await.err().map(|error| refused(&error)),
        Err(error) => Some(error),
    };
    message(&m::Answer { error })
}

async fn desire(body: &[u8], tasks: &Tasks) -> Result<(), m::Error> {
    let desired = desire_from_protobuf(body).map_err(|error| match error {
        ParseError::Protobuf(_) => bad_request(),
        error => m::Error {
            kind: INVALID_REQUEST,
            message: error.to_string(),
        },
    })?;
    tasks.desire(desired).await.map_err(|error| refused(&error))
}

fn upsert(body: &[u8], tasks: &Tasks) -> Result<(), m::Error> {
    let request = m::UpsertDomainRequest::decode(body).map_err(|_| bad_request())?;
    if request.domain.is_empty() {
        return Err(invalid("domain"));
    }
    // 0 is for ever.
    let ttl = Some(u64::from(request.ttl)).filter(|ttl| *ttl > 0);
    tasks.upsert_domain(&request.domain, ttl.map(Duration::from_secs));
    Ok(())
}

async fn list(body: &[u8], tasks: &Tasks, write: impl Fn(&Task) -> Vec<u8>) -> Response<Body> {
    let Ok(request) = m::TasksRequest::decode(body) else {
        return message(&failed(bad_request()));
    };
    let tasks = tasks.list(&request.domain, &request.cell_id).await;
    message(&m::TasksResponse {
        error: None,
        tasks: tasks.iter().map(write).collect(),
    })
}

async fn get(body: &[u8], tasks: &Tasks, write: impl Fn(&Task) -> Vec<u8>) -> Response<Body> {
    let found = match guid(body) {
        Ok(guid) => tasks.get(&guid).await.map_err(|error| refused(&error)),
        Err(error) => Err(error),
    };
    message(&match found {
        Ok(task) => m::TaskResponse {
            error: None,
            task: Some(write(&task)),
        },
        Err(error) => m::TaskResponse {
            error: Some(error),
            task: None,
        },
    })
}

/// For clients from before image layers.
fn older(task: &Task) -> Vec<u8> {
    task_to_protobuf(&Task {
        definition: Arc::new(without_image_layers(&task.definition)),
        ..task.clone()
    })
}

/// This node, as the one cell there is.
fn cell(settings: &Settings) -> m::CellPresence {
    let number = |value: Option<u64>| {
        value
            .and_then(|value| i32::try_from(value).ok())
            .unwrap_or(i32::MAX)
    };
    m::CellPresence {
        cell_id: settings.cell_id.clone(),
        rep_address: settings.node_address.clone(),
        zone: String::new(),
        capacity: Some(m::CellCapacity {
            memory_mb: number(settings.capacity.memory_mb),
            disk_mb: number(settings.capacity.disk_mb),
            containers: i32::try_from(settings.capacity.containers).unwrap_or(i32::MAX),
        }),
        rootfs_providers: vec![
            m::Provider {
                name: "docker".to_owned(),
                properties: Vec::new(),
            },
            m::Provider {
                name: "preloaded".to_owned(),
                properties: settings.preloaded.keys().cloned().collect(),
            },
        ],
        placement_tags: settings.required_tags.iter().cloned().collect(),
        optional_placement_tags: settings.optional_tags.iter().cloned().collect(),
        rep_url: String::new(),
        annotations: Default::default(),
    }
}
