//! Networks that callers make, and what executors ask of one besides rules.

use std::collections::BTreeMap;

use portlayer::element::{NewElement, Spec};
use portlayer::error::{CreateError, DeleteError};
use portlayer::network::{NetworkUse, PortMapping, Protocol, Transport};
use portlayer_node::Node;

use super::world::{self, LAN, World, end, id, opens, rule, start, start_on, tcp, udp};

const MADE: &str = "network://node/made";

async fn make(node: &Node, name: &str, settings: &[(&str, &str)]) -> Result<(), CreateError> {
    let settings: BTreeMap<_, _> = settings
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let new = NewElement::new(
        id(&format!("network://node/{name}")),
        Spec::Network(settings),
    );
    node.port_layer.create(new).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_network_is_one_until_it_is_deleted() {
    let world = World::new();
    let node = world.node().await;
    for (name, settings, field) in [
        ("x", &[("subnet4", "10.90.0.128/25")][..], "subnet4"),
        ("x", &[("subnet4", "169.254.0.0/24")], "subnet4"),
        ("x", &[("subnet4", "10.92.0.0/24"), ("mtu", "12")], "mtu"),
        ("a/b", &[("subnet4", "10.92.0.0/24")], "id"),
        ("x", &[], "subnet4"),
    ] {
        let refused = make(&node, name, settings).await.unwrap_err();
        assert!(
            matches!(&refused, CreateError::InvalidField { field: at, .. } if at == field),
            "{refused:?}"
        );
    }
    make(
        &node,
        "made",
        &[("subnet4", "10.92.0.0/24"), ("egress", "deny")],
    )
    .await
    .unwrap();
    make(&node, "same", &[("subnet4", "10.92.0.0/16")])
        .await
        .unwrap_err();
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let wanted = opens(vec![rule(Protocol::Tcp, &["198.51.100.2"], &["80"])]);
    start_on(&node, "a", MADE, wanted, "exec sleep 1000")
        .await
        .unwrap();
    let space = world.namespace(&id("executor://executors/a"));
    assert!(tcp(&space, "198.51.100.2", 80).is_some());
    assert_eq!(tcp(&space, "203.0.113.2", 80), None);
    let in_use = node.port_layer.delete(&id(MADE)).await.unwrap_err();
    assert!(matches!(in_use, DeleteError::InUse { .. }), "{in_use:?}");
    // What the configuration made is its own.
    let configured = node.port_layer.delete(&id(LAN)).await.unwrap_err();
    assert!(
        matches!(configured, DeleteError::PermissionDenied { .. }),
        "{configured:?}"
    );

    // It is there for the next process of ours.
    node.close().await.unwrap();
    let node = world.open(vec![World::lan()]).await;
    assert!(tcp(&space, "198.51.100.2", 80).is_some());
    end(&node, "a").await;
    node.port_layer.delete(&id(MADE)).await.unwrap();
    let links = world.home.ip("-o link show");
    assert!(!links.contains("plb"), "{links}");
    drop(listener);
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_of_its_own_and_a_port_on_one_address_of_the_host() {
    let world = World::new();
    let node = world.node().await;
    let resolver = world.peers[0].answer("198.51.100.2", 53, "resolver");
    let mapping = PortMapping {
        port: 80,
        protocol: Transport::Tcp,
        host_port: Some(8080),
        host_address: Some("198.51.100.1".parse().unwrap()),
    };
    let wanted = NetworkUse {
        egress: Some(Vec::new()),
        ports: vec![mapping],
        dns: vec!["198.51.100.2".parse().unwrap()],
    };
    let space = start(&world, &node, "a", wanted).await;
    assert!(
        udp(&space, "198.51.100.2", 53).is_some(),
        "its own resolver is open"
    );
    assert_eq!(
        udp(&space, "192.0.2.53", 53),
        None,
        "that of the network is not"
    );
    let listener = world::Answers::start(&space, "10.90.0.2", 80, "web");
    let (one, other) = (world.peers[0].path(), world.peers[1].path());
    assert!(tcp(&one, "198.51.100.1", 8080).is_some());
    assert_eq!(
        tcp(&other, "203.0.113.1", 8080),
        None,
        "another address of the host"
    );
    drop((listener, resolver));
    end(&node, "a").await;
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_somebody_flushed_come_back() {
    let world = World::new();
    let node = world.node().await;
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let space = start(&world, &node, "a", opens(vec![])).await;
    assert_eq!(tcp(&space, "198.51.100.2", 80), None);
    let before = world.home.run("nft list ruleset");
    world.home.run("nft flush ruleset");
    let mut back = String::new();
    for _ in 0..500 {
        back = world.home.run("nft list ruleset");
        if !back.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(back, before);
    assert_eq!(tcp(&space, "198.51.100.2", 80), None);
    node.port_layer.ping_engine().await.unwrap();
    drop(listener);
    end(&node, "a").await;
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_forward_is_warned_of() {
    let world = World::new();
    let node = world.node().await;
    let warned = async || {
        let info = node.info().await.unwrap();
        info.warnings.iter().any(|text| text.contains("ip_forward"))
    };
    assert!(!warned().await);
    start(&world, &node, "a", opens(vec![])).await;
    world.home.run("sysctl -q -w net.ipv4.ip_forward=0");
    assert!(warned().await);
    world.home.run("sysctl -q -w net.ipv4.ip_forward=1");
    assert!(!warned().await);
    end(&node, "a").await;
    world.close(node).await;
}
