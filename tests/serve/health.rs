//! Health follows the engine; reflection tells every service.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::daemon::Daemon;

/// A stopped process; goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// The containerd of a daemon: whose command line names its directory.
    fn containerd(daemon: &Daemon) -> Self {
        let directory = daemon.directory.display().to_string();
        let mut found = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let program = line.split('\0').next()?.rsplit('/').next()?;
                let its = program == "containerd" && line.contains(&directory);
                its.then(|| entry.file_name().to_str()?.parse().ok())?
            });
        let pid = Pid::from_raw(found.next().expect("containerd runs"));
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

async fn status(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let answer = health.check(HealthCheckRequest { service }).await;
    answer.unwrap().into_inner().status()
}

async fn until(health: &mut HealthClient<Channel>, service: &str, wanted: ServingStatus) {
    for _ in 0..600 {
        if status(health, service).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{service:?} never was {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_when_containerd_is_away_and_when_it_is_back() {
    use ServingStatus::{NotServing, Serving};
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let mut health = HealthClient::new(client.channel());
    let need = [
        "",
        "portlayer.v1.ElementsService",
        "portlayer.v1.CompositionsService",
        "portlayer.v1.TasksService",
    ];
    let other = ["portlayer.v1.EventsService", "portlayer.v1.NodeService"];
    for service in need.iter().chain(&other) {
        until(&mut health, service, Serving).await;
    }
    let stopped = Stopped::containerd(&daemon);
    for service in need {
        until(&mut health, service, NotServing).await;
    }
    // What needs no engine goes on, and tells about it.
    for service in other {
        assert_eq!(status(&mut health, service).await, Serving);
    }
    assert!(!client.diagnostics().await.unwrap().engine_available);
    drop(stopped);
    for service in need {
        until(&mut health, service, Serving).await;
    }
    assert!(client.diagnostics().await.unwrap().engine_available);
    drop((health, client));
    daemon.end().await;
}

async fn ask(
    reflection: &mut ServerReflectionClient<Channel>,
    what: MessageRequest,
) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(what),
    };
    let requests = futures::stream::iter([request]);
    let answers = reflection.server_reflection_info(requests).await;
    let answer: Option<ServerReflectionResponse> =
        answers.unwrap().into_inner().message().await.unwrap();
    answer.unwrap().message_response.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_and_describes_it() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let mut reflection = ServerReflectionClient::new(client.channel());
    let listed = ask(&mut reflection, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed else {
        panic!("{listed:?}");
    };
    let listed: Vec<_> = listed
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    let set = FileDescriptorSet::decode(portlayer_proto::DESCRIPTORS).unwrap();
    let mut expected = vec!["grpc.health.v1.Health".to_owned()];
    for file in set
        .file
        .iter()
        .filter(|file| file.package() == "portlayer.v1")
    {
        for service in &file.service {
            expected.push(format!("portlayer.v1.{}", service.name()));
        }
    }
    assert!(expected.len() > 5);
    for service in expected {
        assert!(listed.contains(&service), "{service} is not in {listed:?}");
        let described = ask(
            &mut reflection,
            MessageRequest::FileContainingSymbol(service),
        )
        .await;
        assert!(
            matches!(&described, MessageResponse::FileDescriptorResponse(found) if !found.file_descriptor_proto.is_empty()),
            "{described:?}"
        );
    }
    drop((reflection, client));
    daemon.end().await;
}
