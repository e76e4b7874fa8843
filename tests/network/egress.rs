//! What an executor reaches and what it does not.

use std::path::Path;

use portlayer::network::{EgressDefault, NetworkSpec, NetworkUse, Protocol};

use super::world::{self, World, end, opens, ping, rule, start, tcp, udp, udp_from};

/// Everything that must be closed to an executor whatever its rules say; each with its name.
fn closed_for_everyone(from: &Path, own: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut probe = |name: String, answered: bool| open.extend(answered.then_some(name));
    // The host, by its gateway and its other addresses.
    for host in [
        "10.90.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "fd90::1",
        "2001:db8:1::1",
        "2001:db8:2::1",
    ] {
        probe(
            format!("tcp to the host at {host}"),
            tcp(from, host, 22).is_some(),
        );
        probe(
            format!("udp to the host at {host}"),
            udp(from, host, 22).is_some(),
        );
        probe(format!("ping of the host at {host}"), ping(from, host));
    }
    for metadata in ["169.254.169.254", "fd00:ec2::254"] {
        probe(
            format!("metadata at {metadata}"),
            tcp(from, metadata, 80).is_some(),
        );
        probe(format!("ping of {metadata}"), ping(from, metadata));
    }
    for neighbour in ["10.90.0.2", "10.90.0.3", "fd90::2", "fd90::3"] {
        if neighbour != own && !own.ends_with(&neighbour[neighbour.len() - 1..]) {
            probe(
                format!("tcp to the neighbour {neighbour}"),
                tcp(from, neighbour, 80).is_some(),
            );
            probe(
                format!("udp to the neighbour {neighbour}"),
                udp(from, neighbour, 80).is_some(),
            );
            probe(
                format!("ping of the neighbour {neighbour}"),
                ping(from, neighbour),
            );
        }
    }
    for many in [
        "224.0.0.251",
        "255.255.255.255",
        "10.90.0.255",
        "ff02::fb",
        "ff02::1",
    ] {
        probe(format!("udp to {many}"), udp(from, many, 5353).is_some());
    }
    // IPv4 in IPv6 clothes.
    probe(
        "mapped address".into(),
        tcp(from, "::ffff:169.254.169.254", 80).is_some(),
    );
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_allow_is_open_and_every_other_probe_is_closed() {
    let world = World::new();
    let node = world.node().await;
    let allowed = [
        rule(
            Protocol::Tcp,
            &["198.51.100.0/24", "2001:db8:1::/64"],
            &["80", "8000-8002"],
        ),
        rule(Protocol::Icmp, &["198.51.100.2"], &[]),
        rule(Protocol::Icmpv6, &["2001:db8:1::2"], &[]),
        rule(Protocol::Udp, &["198.18.0.0/15"], &["123"]),
    ];
    let from = start(&world, &node, "a", opens(allowed.to_vec())).await;
    let neighbour = start(&world, &node, "b", NetworkUse::default()).await;

    let mut listeners = Vec::new();
    for address in ["198.51.100.2", "2001:db8:1::2"] {
        for port in [80, 8000, 8002, 8003, 443] {
            listeners.push(world.peers[0].answer(address, port, "peer"));
        }
    }
    for address in ["203.0.113.2", "2001:db8:2::2"] {
        listeners.push(world.peers[1].answer(address, 80, "other"));
    }
    listeners.push(world.peers[1].answer("169.254.169.254", 80, "secrets"));
    listeners.push(world.peers[1].answer("fd00:ec2::254", 80, "secrets"));
    listeners.push(world.peers[1].answer("192.0.2.53", 53, "resolver"));
    listeners.push(world.peers[1].answer("192.0.2.53", 80, "resolver"));
    listeners.push(world.peers[1].answer("198.18.0.1", 123, "time"));
    listeners.push(world.home.answer("0.0.0.0", 22, "host"));
    // One socket for both families would take the port of the other one.
    for address in ["fd90::1", "2001:db8:1::1", "2001:db8:2::1"] {
        listeners.push(world.home.answer(address, 22, "host"));
    }
    let inside_neighbour =
        |address: &str| world::Answers::start(&neighbour, address, 80, "neighbour");
    listeners.push(inside_neighbour("10.90.0.3"));
    listeners.push(inside_neighbour("fd90::3"));

    // What is allowed; the peers see the host's address.
    assert_eq!(
        tcp(&from, "198.51.100.2", 80).as_deref(),
        Some("peer 198.51.100.1")
    );
    assert_eq!(
        tcp(&from, "2001:db8:1::2", 80).as_deref(),
        Some("peer 2001:db8:1::1")
    );
    for port in [8000, 8002] {
        assert!(
            tcp(&from, "198.51.100.2", port).is_some()
                && tcp(&from, "2001:db8:1::2", port).is_some()
        );
    }
    assert!(ping(&from, "198.51.100.2") && ping(&from, "2001:db8:1::2"));
    assert!(udp(&from, "198.18.0.1", 123).is_some());
    assert!(
        udp(&from, "192.0.2.53", 53).is_some(),
        "the network's resolver needs no rule"
    );
    assert!(tcp(&from, "192.0.2.53", 53).is_some());

    // What is not.
    let mut open = closed_for_everyone(&from, "10.90.0.2");
    let mut probe = |name: &str, answered: bool| open.extend(answered.then(|| name.to_owned()));
    probe("tcp/8003", tcp(&from, "198.51.100.2", 8003).is_some());
    probe(
        "tcp/8003 over IPv6",
        tcp(&from, "2001:db8:1::2", 8003).is_some(),
    );
    probe("tcp/443", tcp(&from, "198.51.100.2", 443).is_some());
    probe(
        "tcp/443 over IPv6",
        tcp(&from, "2001:db8:1::2", 443).is_some(),
    );
    probe("udp/80", udp(&from, "198.51.100.2", 80).is_some());
    probe(
        "udp/80 over IPv6",
        udp(&from, "2001:db8:1::2", 80).is_some(),
    );
    probe(
        "udp/443 from port 53",
        udp_from(&from, 53, "198.51.100.2", 443).is_some(),
    );
    probe("another network", tcp(&from, "203.0.113.2", 80).is_some());
    probe(
        "another network over IPv6",
        tcp(&from, "2001:db8:2::2", 80).is_some(),
    );
    probe("ping of another network", ping(&from, "203.0.113.2"));
    probe(
        "ping of another network over IPv6",
        ping(&from, "2001:db8:2::2"),
    );
    probe(
        "the resolver's other ports",
        tcp(&from, "192.0.2.53", 80).is_some(),
    );
    probe("tcp to a udp rule", tcp(&from, "198.18.0.1", 123).is_some());
    assert_eq!(open, Vec::<String>::new(), "open and must not be");

    // The neighbour was started without rules on a network that opens nothing.
    let mut open = closed_for_everyone(&neighbour, "10.90.0.3");
    for (address, port) in [
        ("198.51.100.2", 80),
        ("2001:db8:1::2", 80),
        ("198.18.0.1", 123),
    ] {
        open.extend(tcp(&neighbour, address, port).map(|answer| format!("{address}: {answer}")));
        open.extend(ping(&neighbour, address).then(|| format!("ping of {address}")));
    }
    assert_eq!(open, Vec::<String>::new(), "open and must not be");
    // The peers cannot reach executors at all.
    world.peers[0].ip("route add 10.90.0.0/24 via 198.51.100.1");
    assert_eq!(tcp(&world.peers[0].path(), "10.90.0.3", 80), None);

    drop(listeners);
    end(&node, "a").await;
    end(&node, "b").await;
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_network_keeps_closed_what_is_closed_and_what_its_owner_closed() {
    let world = World::new();
    let open = NetworkSpec {
        egress: EgressDefault::Allow,
        never: vec![portlayer::network::Range::parse("203.0.113.0/24").unwrap()],
        ..World::lan()
    };
    let node = world.node().await;
    node.close().await.unwrap();
    let node = world.open(vec![open]).await;
    let from = start(&world, &node, "a", NetworkUse::default()).await;
    let wide = rule(Protocol::All, &["0.0.0.0/0", "::/0"], &[]);
    let other = start(&world, &node, "b", opens(vec![wide])).await;
    let mut listeners = vec![
        world.peers[0].answer("198.51.100.2", 80, "peer"),
        world.peers[0].answer("2001:db8:1::2", 80, "peer"),
        world.peers[1].answer("203.0.113.2", 80, "never"),
        world.peers[1].answer("169.254.169.254", 80, "secrets"),
        world.peers[1].answer("fd00:ec2::254", 80, "secrets"),
        world.home.answer("0.0.0.0", 22, "host"),
    ];
    for address in ["fd90::1", "2001:db8:1::1", "2001:db8:2::1"] {
        listeners.push(world.home.answer(address, 22, "host"));
    }
    for (space, own) in [(&from, "10.90.0.2"), (&other, "10.90.0.3")] {
        listeners.push(world::Answers::start(space, own, 80, "neighbour"));
    }
    for (space, own) in [(&from, "10.90.0.2"), (&other, "10.90.0.3")] {
        assert!(tcp(space, "198.51.100.2", 80).is_some());
        assert!(tcp(space, "2001:db8:1::2", 80).is_some());
        let mut open = closed_for_everyone(space, own);
        open.extend(tcp(space, "203.0.113.2", 80).map(|_| "what the owner closed".to_owned()));
        open.extend(ping(space, "203.0.113.2").then(|| "ping of what the owner closed".to_owned()));
        assert_eq!(open, Vec::<String>::new(), "open to {own} and must not be");
    }
    drop(listeners);
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_cannot_send_from_another_address() {
    let world = World::new();
    let node = world.node().await;
    let wide = rule(Protocol::All, &["0.0.0.0/0", "::/0"], &[]);
    let _neighbour = start(&world, &node, "open", opens(vec![wide])).await;
    let from = start(&world, &node, "closed", NetworkUse::default()).await;
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let listener6 = world.peers[0].answer("2001:db8:1::2", 80, "peer");
    // As root in its own namespace, the executor takes the address and the hardware address of its neighbour.
    let ip = |line: &str| world::inside(&from, || world::run(&format!("ip {line}")));
    ip("addr flush dev eth0 scope global");
    ip("addr add 10.90.0.2/32 dev eth0");
    ip("addr add fd90::2/128 dev eth0 nodad");
    ip("route replace 10.90.0.1 dev eth0 scope link");
    ip("route replace default via 10.90.0.1");
    assert_eq!(tcp(&from, "198.51.100.2", 80), None);
    assert_eq!(tcp(&from, "2001:db8:1::2", 80), None);
    ip("link set eth0 down");
    ip("link set eth0 address 02:70:6c:00:00:02 up");
    ip("addr replace 10.90.0.2/32 dev eth0");
    ip("route replace 10.90.0.1 dev eth0 scope link");
    ip("route replace default via 10.90.0.1");
    ip("neigh replace 10.90.0.1 lladdr 02:70:6c:00:00:01 dev eth0 nud permanent");
    assert_eq!(tcp(&from, "198.51.100.2", 80), None);
    // What it says about addresses reaches nobody: the neighbour's answers still go to the neighbour.
    world::inside(&from, || {
        let arping = [
            "arping",
            "-A",
            "-c",
            "2",
            "-w",
            "2",
            "-I",
            "eth0",
            "10.90.0.2",
        ];
        let _ = std::process::Command::new("/bin/busybox")
            .args(arping)
            .output();
    });
    let neighbours = world.home.ip("neigh show");
    assert!(
        neighbours.lines().any(|line| line.starts_with("10.90.0.2 ")
            && line.contains("02:70:6c:00:00:02")
            && line.contains("PERMANENT")),
        "{neighbours}"
    );
    let table = world.home.run("bridge fdb show");
    let of_neighbour: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("02:70:6c:00:00:02"))
        .collect();
    assert_eq!(of_neighbour.len(), 1, "{table}");
    drop((listener, listener6));
    world.close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_rules_load_and_hold() {
    let world = World::new();
    let node = world.node().await;
    let mut rules = Vec::new();
    for number in 0..499u32 {
        let v4 = format!("100.64.{}.{}/31", number / 128, (number % 128) * 2);
        let v6 = format!("2001:db8:{:x}::/48", number + 100);
        let ports = format!("{}-{}", 1000 + number, 2000 + number);
        rules.push(rule(Protocol::Tcp, &[&v4, &v6], &["443", &ports]));
    }
    rules.push(rule(Protocol::Tcp, &["198.51.100.2"], &["80"]));
    let few = start(&world, &node, "few", opens(vec![rules[499].clone()])).await;
    let many = start(&world, &node, "many", opens(rules)).await;
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    let other = world.peers[0].answer("198.51.100.2", 81, "peer");
    for from in [&few, &many] {
        assert!(tcp(from, "198.51.100.2", 80).is_some());
        assert_eq!(tcp(from, "198.51.100.2", 81), None);
    }
    drop((listener, other));
    world.close(node).await;
}
