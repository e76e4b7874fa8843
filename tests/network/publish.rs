//! Ports that the host publishes.

use std::net::UdpSocket;
use std::time::Duration;

use portlayer::compose::{CommitError, StepError};
use portlayer::network::{NetworkUse, PortMapping, Transport};
use portlayer::runtime::RuntimeErrorKind;

use super::world::{self, LAN, World, end, id, start, start_on, tcp, udp};

fn publishes(mappings: &[(Transport, u16, Option<u16>)]) -> NetworkUse {
    let ports = mappings
        .iter()
        .map(|&(protocol, port, host_port)| PortMapping {
            port,
            protocol,
            host_port,
            host_address: None,
        });
    NetworkUse {
        ports: ports.collect(),
        ..NetworkUse::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_outside_and_from_the_host_and_nothing_else_is() {
    let world = World::new();
    let node = world.node().await;
    let wanted = publishes(&[(Transport::Tcp, 80, Some(8080)), (Transport::Udp, 80, None)]);
    let space = start(&world, &node, "web", wanted).await;
    let mut listeners = Vec::new();
    for address in ["10.90.0.2", "fd90::2"] {
        for port in [80, 81] {
            listeners.push(world::Answers::start(&space, address, port, "web"));
        }
    }
    let (outside, home) = (world.peers[0].path(), world.home.path());
    for (address, seen) in [
        ("198.51.100.1", "198.51.100.2"),
        ("2001:db8:1::1", "2001:db8:1::2"),
    ] {
        assert_eq!(tcp(&outside, address, 8080), Some(format!("web {seen}")));
        assert_eq!(udp(&outside, address, 40_000), Some(format!("web {seen}")));
        assert!(tcp(&home, address, 8080).is_some(), "from the host itself");
        for closed in [80, 81, 8081] {
            assert_eq!(tcp(&outside, address, closed), None);
        }
        assert_eq!(udp(&outside, address, 8080), None);
    }
    drop(listeners);
    end(&node, "web").await;
    assert_eq!(tcp(&outside, "198.51.100.1", 8080), None);
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_loopback_reaches_what_is_published_and_is_reached_by_nobody() {
    let world = World::new();
    let node = world.node().await;
    let (outside, home) = (world.peers[0].path(), world.home.path());
    world.home.ip("link set lo up");
    let everywhere = publishes(&[
        (Transport::Tcp, 80, Some(8080)),
        (Transport::Udp, 80, Some(8080)),
    ]);
    let at = |address: &str| {
        let mut wanted = publishes(&[(Transport::Tcp, 80, Some(8081))]);
        wanted.ports[0].host_address = Some(address.parse().unwrap());
        wanted
    };
    let web = start(&world, &node, "web", everywhere).await;
    let own = start(&world, &node, "own", at("127.0.0.1")).await;
    let plain = start(&world, &node, "plain", NetworkUse::default()).await;
    let _listeners = [
        world::Answers::start(&web, "10.90.0.2", 80, "web"),
        world::Answers::start(&own, "10.90.0.3", 80, "own"),
    ];
    // They see the bridge, as nothing can be answered to 127.0.0.1.
    assert_eq!(tcp(&home, "127.0.0.1", 8080), Some("web 10.90.0.1".into()));
    assert_eq!(tcp(&home, "127.1.2.3", 8080), Some("web 10.90.0.1".into()));
    assert_eq!(udp(&home, "127.0.0.1", 8080), Some("web 10.90.0.1".into()));
    assert_eq!(tcp(&home, "127.0.0.1", 8081), Some("own 10.90.0.1".into()));
    for closed in ["198.51.100.1", "127.0.0.2"] {
        assert_eq!(tcp(&home, closed, 8081), None, "only where it is published");
    }
    assert_eq!(tcp(&outside, "198.51.100.1", 8081), None);

    // One with every capability in its namespace sends what is for 127.0.0.1 to the host. What counts is what arrives.
    let socket = |at: &str| UdpSocket::bind(at).unwrap();
    let secret = world::inside(&home, || socket("127.0.0.1:9000"));
    let hostile = world::inside(&plain, || {
        world::run("ip route del local 127.0.0.0/8 dev lo table local");
        world::run("ip route del local 127.0.0.1 dev lo table local");
        world::run("ip route add 127.0.0.0/8 via 10.90.0.1 dev eth0");
        socket("10.90.0.4:0")
    });
    let friend = world::inside(&home, || socket("127.0.0.1:0"));
    secret
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut said = [0; 16];
    for (sender, arrives) in [(&friend, true), (&hostile, false)] {
        sender.send_to(b"hello", "127.0.0.1:9000").unwrap();
        assert_eq!(secret.recv_from(&mut said).is_ok(), arrives);
    }

    let open = || {
        world::inside(&home, || {
            let all = std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap();
            let all = all.map(|entry| entry.unwrap().path().join("route_localnet"));
            all.filter(|path| std::fs::read_to_string(path).unwrap().trim() == "1")
                .count()
        })
    };
    assert_eq!(open(), 1);
    let node = {
        node.close().await.unwrap();
        world.open(vec![World::lan()]).await
    };
    assert_eq!(
        (open(), tcp(&home, "127.0.0.1", 8080)),
        (1, Some("web 10.90.0.1".into()))
    );
    end(&node, "web").await;
    assert_eq!((open(), tcp(&home, "127.0.0.1", 8080)), (1, None));
    end(&node, "own").await;
    assert_eq!(open(), 0, "nobody publishes any more");
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_refused() {
    let world = World::new();
    let node = world.node().await;
    let listener = world.home.answer("0.0.0.0", 8080, "host");
    let wanted = publishes(&[(Transport::Tcp, 80, Some(8080))]);
    let refused = start_on(&node, "a", LAN, wanted.clone(), "exec sleep 1000").await;
    match refused {
        Err(CommitError::Step {
            element,
            source: StepError::Runtime(error),
            ..
        }) => {
            assert_eq!(
                (element, error.kind),
                (id(LAN), RuntimeErrorKind::PortInUse { port: 8080 })
            );
        }
        other => panic!("{other:?}"),
    }
    drop(listener);
    start(&world, &node, "b", wanted.clone()).await;
    let refused = start_on(&node, "c", LAN, wanted, "exec sleep 1000").await;
    assert!(
        matches!(&refused, Err(CommitError::Invalid { field, .. }) if field == "ports[0].host_port"),
        "{refused:?}"
    );
    world.close(node).await;
}
