//! Networks from start to end: what is made, what is left, what a restart of ours finds.

use portlayer::compose::{BindHow, CommitError, JoinHow};
use portlayer::element::{NewElement, Spec};
use portlayer::network::{NetworkUse, Protocol};
use portlayer::runtime::FindingClass;
use portlayer_node::Node;

use super::world::{LAN, World, end, id, opens, ping, rule, start, start_on, tcp};

async fn held(node: &Node, class: FindingClass) -> usize {
    let report = node.port_layer.audit().await.unwrap();
    let leaks: Vec<_> = report.leaks().collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    report
        .found
        .iter()
        .filter(|audited| audited.finding.class == class)
        .count()
}

async fn output(node: &Node, name: &str) -> String {
    use futures::TryStreamExt;
    let query = portlayer::runtime::LogQuery {
        executor: id(&format!("executor://executors/{name}")),
        task: id(&format!("task://tasks/{name}")),
        streams: portlayer::runtime::LogStreams::Both,
        since: None,
        tail: None,
        follow: false,
    };
    let chunks = node.port_layer.logs(&query).await.unwrap();
    let bytes: Vec<u8> = chunks
        .map_ok(|chunk| chunk.bytes)
        .try_concat()
        .await
        .unwrap()
        .to_vec();
    String::from_utf8(bytes).unwrap()
}

async fn run_to_end(
    node: &Node,
    name: &str,
    network: &str,
    wanted: NetworkUse,
    script: &str,
) -> String {
    start_on(node, name, network, wanted, script).await.unwrap();
    let (executor, task) = (
        id(&format!("executor://executors/{name}")),
        id(&format!("task://tasks/{name}")),
    );
    node.port_layer.wait(&executor, &task, None).await.unwrap();
    output(node, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_sees_of_its_network() {
    let world = World::new();
    let node = world.node().await;
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let wanted = opens(vec![rule(Protocol::Tcp, &["198.51.100.2"], &["80"])]);
    // The very first packet is filtered and let through: the network is there before the program.
    let script = "nc -w 2 198.51.100.2 80 </dev/null; echo; nc -w 2 203.0.113.2 80 </dev/null || echo closed; \
                  cat /etc/resolv.conf; tail -n 2 /etc/hosts; hostname; ip -o addr show | awk '{print $2, $4}'; \
                  echo x > /etc/hosts || true";
    let said = run_to_end(&node, "a", LAN, wanted, script).await;
    let expected = [
        "peer 198.51.100.1",
        "closed",
        "nameserver 192.0.2.53",
        "10.90.0.2\ta",
        "fd90::2\ta",
        "a",
        "lo 127.0.0.1/8",
        "lo ::1/128",
        "eth0 10.90.0.2/32",
        "eth0 fd90::2/128",
    ];
    for line in expected {
        assert!(
            said.lines().any(|said| said == line),
            "{line:?} is not in\n{said}"
        );
    }
    assert!(said.contains("Read-only file system"), "{said}");

    let said = run_to_end(
        &node,
        "none",
        "network://node/none",
        NetworkUse::default(),
        "ip -o addr show | awk '{print $2}' | sort -u; ip route",
    )
    .await;
    assert_eq!(said, "lo\n");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let said = run_to_end(
        &node,
        "host",
        "network://node/host",
        NetworkUse::default(),
        "readlink /proc/self/ns/net",
    )
    .await;
    assert_eq!(said.trim(), own.to_str().unwrap());
    drop(listener);
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_an_executor_is_listed_and_goes_with_it() {
    let world = World::new();
    let node = world.node().await;
    assert_eq!(held(&node, FindingClass::Interface).await, 0);
    start(&world, &node, "a", NetworkUse::default()).await;
    start(&world, &node, "b", NetworkUse::default()).await;
    // The bridge and two links; the table and two chains for each; two namespaces.
    assert_eq!(held(&node, FindingClass::Interface).await, 3);
    assert_eq!(held(&node, FindingClass::Firewall).await, 5);
    assert_eq!(held(&node, FindingClass::NetworkNamespace).await, 2);
    end(&node, "a").await;
    assert_eq!(held(&node, FindingClass::Interface).await, 2);
    assert_eq!(held(&node, FindingClass::Firewall).await, 3);
    assert_eq!(held(&node, FindingClass::NetworkNamespace).await, 1);
    end(&node, "b").await;
    assert_eq!(held(&node, FindingClass::Interface).await, 1);
    let left = world.home.run("nft list ruleset");
    assert!(
        !left.contains("10.90.0.2") && !left.contains("10.90.0.3"),
        "{left}"
    );
    assert!(
        !world.home.ip("neigh show").contains("10.90.0."),
        "neighbours are left"
    );
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_nobody_is_a_leak_and_is_swept() {
    let world = World::new();
    let node = world.node().await;
    start(&world, &node, "a", NetworkUse::default()).await;
    let namespace = node.places().namespace.clone();
    world
        .home
        .run(&format!("nft add chain inet {namespace} x-stray"));
    let report = node.port_layer.audit().await.unwrap();
    let leaks: Vec<_> = report.leaks().map(|leak| leak.name.clone()).collect();
    assert_eq!(leaks, [format!("{namespace} x-stray")]);
    node.close().await.unwrap();
    // The next open sweeps it.
    let node = world.open(vec![World::lan()]).await;
    end(&node, "a").await;
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_networks_as_they_were_and_mends_what_was_lost() {
    let world = World::new();
    let node = world.node().await;
    let wanted = opens(vec![rule(Protocol::Tcp, &["198.51.100.2"], &["80"])]);
    let from = start(&world, &node, "a", wanted.clone()).await;
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let other = world.peers[0].answer("198.51.100.2", 81, "peer");
    let holds = |when: &str| {
        assert!(tcp(&from, "198.51.100.2", 80).is_some(), "{when}");
        assert_eq!(tcp(&from, "198.51.100.2", 81), None, "{when}");
        assert!(!ping(&from, "10.90.0.1"), "{when}");
    };
    holds("at first");
    node.close().await.unwrap();
    holds("without a port layer");
    let node = world.open(vec![World::lan()]).await;
    holds("after a restart");

    // Somebody flushes the firewall, somebody else removes the link.
    node.close().await.unwrap();
    world.home.run("nft flush ruleset");
    let node = world.open(vec![World::lan()]).await;
    holds("after a flush");
    node.close().await.unwrap();
    let links = world.home.ip("-o link show");
    let link = links
        .split_whitespace()
        .find(|word| word.starts_with("plv"))
        .unwrap();
    world
        .home
        .ip(&format!("link del {}", link.split('@').next().unwrap()));
    let node = world.open(vec![World::lan()]).await;
    holds("after a link was removed");

    // While it runs: the next change makes all of it again.
    world.home.run("nft flush ruleset");
    start(&world, &node, "b", NetworkUse::default()).await;
    holds("after a flush and a start");
    end(&node, "a").await;
    end(&node, "b").await;
    drop((listener, other));
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_joined_changed_and_left_by_a_running_executor() {
    let world = World::new();
    let node = world.node().await;
    let layer = &node.port_layer;
    let executor = id("executor://executors/a");
    start_on(
        &node,
        "a",
        "network://node/none",
        NetworkUse::default(),
        "exec sleep 1000",
    )
    .await
    .unwrap();
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let other = world.peers[0].answer("198.51.100.2", 81, "peer");
    let join = async |ports: &[&str], left: &str| {
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.unbind(handle, Some(&id(left))).await.unwrap();
        let handle = layer.leave(handle, &id(left)).await.unwrap();
        let wanted = opens(vec![rule(Protocol::Tcp, &["198.51.100.2"], ports)]);
        let handle = layer
            .join(handle, &id(LAN), JoinHow::Network(wanted))
            .await
            .unwrap();
        let handle = layer
            .bind(handle, Some(&id(LAN)), BindHow::Plain)
            .await
            .unwrap();
        layer.commit(handle).await.unwrap();
    };
    let space = world.namespace(&executor);
    join(&["80"], "network://node/none").await;
    assert!(tcp(&space, "198.51.100.2", 80).is_some());
    assert_eq!(tcp(&space, "198.51.100.2", 81), None);
    join(&["81"], LAN).await;
    assert!(tcp(&space, "198.51.100.2", 81).is_some());
    assert_eq!(tcp(&space, "198.51.100.2", 80), None);

    let handle = layer.compose(&executor).await.unwrap();
    let handle = layer.unbind(handle, Some(&id(LAN))).await.unwrap();
    let handle = layer.leave(handle, &id(LAN)).await.unwrap();
    layer.commit(handle).await.unwrap();
    assert!(!space.exists(), "its namespace is kept no more");
    assert_eq!(held(&node, FindingClass::Interface).await, 1);

    let host = id("network://node/host");
    let handle = layer.compose(&executor).await.unwrap();
    let handle = layer.join(handle, &host, JoinHow::network()).await.unwrap();
    let handle = layer
        .bind(handle, Some(&host), BindHow::Plain)
        .await
        .unwrap();
    let refused = layer.commit(handle).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::NeedsRestart { .. }),
        "{refused:?}"
    );
    drop((listener, other));
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_configured_no_more_cannot_be_used_and_goes_when_it_is_free() {
    let world = World::new();
    let node = world.node().await;
    start(&world, &node, "a", NetworkUse::default()).await;
    let layer = &node.port_layer;
    let handle = layer.compose(&id("executor://executors/a")).await.unwrap();
    let handle = layer
        .unbind(handle, Some(&id("executor://executors/a")))
        .await
        .unwrap();
    layer.commit(handle).await.unwrap();
    node.close().await.unwrap();

    let node = world.open(Vec::new()).await;
    let layer = &node.port_layer;
    assert_eq!(
        held(&node, FindingClass::Interface).await,
        0,
        "its bridge is gone"
    );
    let handle = layer.compose(&id("executor://executors/a")).await.unwrap();
    let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
    let refused = layer.commit(handle).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::UnresolvedRequirement { .. }),
        "{refused:?}"
    );
    layer.delete(&id("executor://executors/a")).await.unwrap();
    node.close().await.unwrap();
    let node = world.open(Vec::new()).await;
    assert!(node.port_layer.read(&id(LAN)).await.is_err());
    // Nobody makes one by hand.
    let new = NewElement::new(
        id("network://node/other"),
        Spec::Network(Default::default()),
    );
    assert!(node.port_layer.create(new).await.is_err());
    world.close(node).await;
}
