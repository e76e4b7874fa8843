//! A client made from Diego's messages, over mutual TLS, against tasks on the fake engine.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod node;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use node::{Authority, Node};
use portlayer_taskdef::diego::{definition_from_protobuf, desire_to_protobuf, from_json};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
struct Guid {
    #[prost(string, tag = "1")]
    task_guid: String,
}

#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(bytes = "vec", tag = "1")]
    definition: Vec<u8>,
    #[prost(string, tag = "2")]
    task_guid: String,
    #[prost(int32, tag = "7")]
    state: i32,
    #[prost(bool, tag = "10")]
    failed: bool,
    #[prost(string, tag = "11")]
    failure_reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct TaskResponse {
    #[prost(message, optional, tag = "1")]
    error: Option<Error>,
    #[prost(message, optional, tag = "2")]
    task: Option<Task>,
}

#[derive(Clone, PartialEq, Message)]
struct TasksResponse {
    #[prost(message, optional, tag = "1")]
    error: Option<Error>,
    #[prost(message, repeated, tag = "2")]
    tasks: Vec<Task>,
}

#[derive(Clone, PartialEq, Message)]
struct Changed {
    #[prost(message, optional, tag = "1")]
    before: Option<Task>,
    #[prost(message, optional, tag = "2")]
    after: Option<Task>,
}

struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    async fn call<T: Message + Default>(&self, route: &str, request: Vec<u8>) -> T {
        let answer = self
            .http
            .post(format!("{}{route}", self.base))
            .body(request);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{route}");
        assert_eq!(answer.headers()["content-type"], "application/x-protobuf");
        T::decode(answer.bytes().await.unwrap()).unwrap()
    }

    /// Type and text of a refusal; 0 and nothing when there was none.
    async fn told(&self, route: &str, request: Vec<u8>) -> (i32, String) {
        let answer: Answer = self.call(route, request).await;
        let error = answer.error.unwrap_or_default();
        (error.kind, error.message)
    }

    async fn task(&self, route: &str, guid: &str) -> Task {
        let answer: TaskResponse = self.call(route, named(guid)).await;
        assert_eq!(answer.error, None);
        answer.task.unwrap()
    }
}

fn named(guid: &str) -> Vec<u8> {
    let task_guid = guid.to_owned();
    Guid { task_guid }.encode_to_vec()
}

fn desire(guid: &str, script: &str) -> Vec<u8> {
    let mut words = script.split(' ');
    let path = words.next().unwrap();
    let args: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    let json = format!(
        r#"{{"task_guid":"{guid}","domain":"d","rootfs":"preloaded:fs","privileged":true,"legacy_download_user":"me",
            "image_layers":[{{"url":"http://nowhere.invalid/x","destination_path":"/x","layer_type":"EXCLUSIVE","media_type":"TGZ","digest_algorithm":"SHA256","digest_value":"00"}}],
            "action":{{"run":{{"path":"{path}","args":[{}],"user":"me"}}}}}}"#,
        args.join(",")
    );
    desire_to_protobuf(&from_json(json.as_bytes()).unwrap().desired)
}

/// Names and messages of the events that came, until the one that is waited for.
async fn events_until(stream: &mut reqwest::Response, last: &str) -> Vec<(String, Vec<u8>)> {
    let mut text = String::new();
    loop {
        let events: Vec<_> = text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n"))
            .map(|event| {
                let line = |name: &str| {
                    let found = event.lines().find_map(|line| line.strip_prefix(name));
                    found.unwrap().to_owned()
                };
                assert!(event.starts_with("id: "), "{event}");
                (line("event: "), STANDARD.decode(line("data: ")).unwrap())
            })
            .collect();
        if events.iter().any(|(name, _)| name == last) {
            return events;
        }
        let chunk = tokio::time::timeout(Duration::from_secs(60), stream.chunk()).await;
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_desires_watches_cancels_resolves_and_deletes() {
    let authority = Authority::new();
    let node = Node::open(&authority).await;
    let client = Client {
        http: authority.client(true),
        base: node.url.clone(),
    };
    let pong: Guid = Guid::default();
    assert_eq!(pong.task_guid, "");
    let ping = client.http.post(format!("{}/v1/ping", client.base)).send();
    assert_eq!(ping.await.unwrap().bytes().await.unwrap()[..], [0x08, 1]);

    let stream = client
        .http
        .post(format!("{}/v1/events/tasks.r1", client.base))
        .send();
    let mut stream = stream.await.unwrap();
    assert!(
        stream.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );

    let request = desire("g-1", "hang");
    assert_eq!(
        client.told("/v1/tasks/desire.r2", request.clone()).await,
        (0, String::new())
    );
    assert_eq!(client.told("/v1/tasks/desire.r2", request).await.0, 12);
    let (kind, text) = client
        .told("/v1/tasks/desire.r2", desire("g 2", "hang"))
        .await;
    assert_eq!((kind, text.as_str()), (4, "Invalid field: task_guid"));
    assert_eq!(client.told("/v1/tasks/desire.r2", vec![0xff; 8]).await.0, 4);
    assert_eq!(client.told("/v1/tasks/cancel", named("nobody")).await.0, 13);
    assert_eq!(client.told("/v1/tasks/delete", named("g-1")).await.0, 9);

    // The newest form has the layer; the older one a download before the action.
    let newest = client.task("/v1/tasks/get_by_task_guid.r3", "g-1").await;
    let definition = definition_from_protobuf(&newest.definition).unwrap();
    assert_eq!(definition.image_layers.len(), 1);
    let older = client.task("/v1/tasks/get_by_task_guid.r2", "g-1").await;
    let definition = definition_from_protobuf(&older.definition).unwrap();
    assert!(definition.image_layers.is_empty());
    assert!(definition.action.unwrap().serial.is_some());
    let listed: TasksResponse = client.call("/v1/tasks/list.r3", Vec::new()).await;
    assert_eq!(listed.tasks.len(), 1);

    assert_eq!(
        client.told("/v1/tasks/cancel", named("g-1")).await,
        (0, String::new())
    );
    let (kind, text) = client.told("/v1/tasks/cancel", named("g-1")).await;
    assert_eq!(
        (kind, text.as_str()),
        (9, "Cannot transition from Completed to Completed")
    );
    let cancelled = client.task("/v1/tasks/get_by_task_guid.r3", "g-1").await;
    assert_eq!((cancelled.state, cancelled.failed), (3, true));
    assert_eq!(cancelled.failure_reason, "task was cancelled");
    assert_eq!(client.told("/v1/tasks/resolving", named("g-1")).await.0, 0);
    assert_eq!(client.told("/v1/tasks/delete", named("g-1")).await.0, 0);
    let gone: TaskResponse = client
        .call("/v1/tasks/get_by_task_guid.r3", named("g-1"))
        .await;
    assert_eq!(gone.error.unwrap().kind, 13);

    let events = events_until(&mut stream, "task_removed").await;
    assert_eq!(events[0].0, "task_created");
    let changed = events.iter().filter(|(name, _)| name == "task_changed");
    let changed: Vec<_> = changed
        .map(|(_, bytes)| {
            let changed = Changed::decode(bytes.as_slice()).unwrap();
            (changed.before.unwrap().state, changed.after.unwrap().state)
        })
        .collect();
    assert!(changed.contains(&(3, 4)), "{changed:?}");
    drop(stream);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_certificate_of_the_authority() {
    let authority = Authority::new();
    let node = Node::open(&authority).await;
    let ping = |client: reqwest::Client| {
        let url = format!("{}/v1/ping", node.url);
        async move {
            client
                .post(url)
                .send()
                .await
                .map(|answer| answer.status().as_u16())
        }
    };
    assert_eq!(ping(authority.client(true)).await.unwrap(), 200);
    assert!(ping(authority.client(false)).await.is_err());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_others_is_empty_or_refused() {
    let authority = Authority::new();
    let node = Node::open(&authority).await;
    let client = Client {
        http: authority.client(true),
        base: node.url.clone(),
    };
    assert_eq!(
        client.told("/v1/actual_lrps/list", Vec::new()).await,
        (0, String::new())
    );
    let (_, text) = client.told("/v1/tasks/complete", named("x")).await;
    assert!(text.contains("/v1/tasks/complete"), "{text}");
    let upsert = [&[0x0a, 1][..], b"d", &[0x10, 60]].concat();
    assert_eq!(client.told("/v1/domains/upsert", upsert).await.0, 0);
    let domains: Guids = client.call("/v1/domains/list", Vec::new()).await;
    assert_eq!(domains.names, ["d"]);
    let none = client
        .http
        .post(format!("{}/v1/nothing", client.base))
        .send()
        .await;
    assert_eq!(none.unwrap().status(), 404);
    node.close().await;
}

#[derive(Clone, PartialEq, Message)]
struct Guids {
    #[prost(string, repeated, tag = "2")]
    names: Vec<String>,
}
