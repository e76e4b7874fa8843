//! Ports that the host publishes.

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
