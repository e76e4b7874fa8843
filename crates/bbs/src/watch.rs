//! The stream of events: server-sent events with a message in base64 each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use portlayer_taskdef::diego::{TaskEvent, task_to_protobuf};
use prost::Message;
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

use crate::message as m;
use crate::routes::Body;

/// Changes of tasks from now on. A client that is too slow, and everyone when the node stops, is cut off: it connects
/// again and looks at the tasks, as it does with Diego.
pub(crate) fn stream(events: Receiver<TaskEvent>, stop: CancellationToken) -> Response<Body> {
    let frames = stream::unfold(
        (events, stop, 0u64),
        |(mut events, stop, number)| async move {
            let event = tokio::select! {
                () = stop.cancelled() => return None,
                event = events.recv() => event.ok()?,
            };
            let frame = Frame::data(Bytes::from(text(&event, number)));
            Some((Ok(frame), (events, stop, number + 1)))
        },
    );
    let mut answer = Response::new(StreamBody::new(frames).boxed());
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    answer
}

fn text(event: &TaskEvent, number: u64) -> String {
    let bytes = match event {
        TaskEvent::Created(task) | TaskEvent::Removed(task) => m::OneTaskEvent {
            task: task_to_protobuf(task),
        }
        .encode_to_vec(),
        TaskEvent::Changed { before, after } => m::TaskChangedEvent {
            before: task_to_protobuf(before),
            after: task_to_protobuf(after),
        }
        .encode_to_vec(),
    };
    format!(
        "id: {number}\nevent: {}\ndata: {}\n\n",
        event.name(),
        STANDARD.encode(bytes)
    )
}
