//! Spans arrive at a collector: one per call, and below it the steps of its commit.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::daemon::{Daemon, busybox, ids, one_call, shell};

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            for scope in resource.scope_spans {
                for span in scope.spans {
                    self.0.send(span).unwrap();
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|found| found.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_and_the_steps_of_its_commit_are_below_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (spans, mut arrived) = mpsc::unbounded_channel();
    let collector = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(spans)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let mut daemon = Daemon::start_with(&format!("[trace]\nendpoint = 'http://{address}'\n"));
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let (task, executor) = ids("x");
    client
        .run(one_call("x", &image, shell("true")))
        .await
        .unwrap();
    client.wait(&executor, &task, None).await.unwrap();
    drop(client);
    // Its end sends the last of them.
    daemon.end().await;
    collector.abort();
    let _ = collector.await;
    let mut all = Vec::new();
    while let Some(span) = arrived.recv().await {
        all.push(span);
    }
    let method = "/portlayer.v1.TasksService/Run";
    let is_run = |span: &&Span| attribute(span, "method").as_deref() == Some(method);
    let run = all.iter().find(is_run).expect("a span of the call");
    assert_eq!(run.name, "call");
    assert_eq!(attribute(run, "actor").as_deref(), Some("uid 0"));
    // The ids of all it was about: the last is the executor.
    let mut ids = run.attributes.iter().filter(|found| found.key == "id");
    let last = ids.next_back().and_then(|found| found.value.clone());
    let executor = Value::StringValue(executor.to_string());
    assert_eq!(last.and_then(|value| value.value), Some(executor));
    assert!(attribute(run, "revision").is_some());
    let steps: Vec<_> = all
        .iter()
        .filter(|span| span.name == "step" && span.trace_id == run.trace_id)
        .filter_map(|span| attribute(span, "name"))
        .collect();
    for step in [
        "open lease",
        "claim",
        "prepare root",
        "create container",
        "create process",
        "start process",
        "record",
    ] {
        assert!(steps.iter().any(|found| found == step), "{step}: {steps:?}");
    }
}
