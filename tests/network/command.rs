//! Networks by the command: flags, composition files, and what it shows.

use super::world::World;
use crate::cli::{Node, Way, code, shown};

fn node(world: &World) -> Node {
    let home = world.home.path();
    let config = format!(
        "[engine]\nnetwork_namespace = {:?}\n",
        home.to_str().unwrap()
    );
    Node::with(Way::Daemon, &config)
}

#[test]
fn a_network_is_made_used_shown_and_removed() {
    let world = World::new();
    let node = node(&world);
    let listener = world.peers[0].answer("198.51.100.2", 80, "peer");
    node.ok(&[
        "network",
        "create",
        "lan",
        "--set",
        "subnet4=10.91.0.0/24",
        "--set",
        "dns=192.0.2.53",
    ]);
    let fetch = "nc -w 2 198.51.100.2 80 </dev/null && echo; nc -w 2 203.0.113.2 80 </dev/null || echo closed; cat /etc/resolv.conf";
    let said = node.ok(&[
        "run",
        "--network",
        "lan",
        "--egress",
        "tcp:198.51.100.0/24:80,443:log",
        "--dns",
        "198.51.100.53",
        "busybox",
        "sh",
        "-c",
        fetch,
    ]);
    assert_eq!(
        said,
        "peer 198.51.100.1\nclosed\nnameserver 198.51.100.53\n"
    );
    let said = node.ok(&[
        "run",
        "--network",
        "network://node/lan",
        "busybox",
        "sh",
        "-c",
        "nc -w 2 198.51.100.2 80 </dev/null || echo closed",
    ]);
    assert_eq!(said, "closed\n", "the default of a made network is deny");

    // The same in a file.
    node.ok(&["task", "create", "t", "--", "sleep", "1000"]);
    let file = node.directory.join("compose.toml");
    std::fs::write(
        &file,
        "executor = 'web'\ncreate = {}\n[[join]]\nid = 'image://images/busybox'\n\
         [[join]]\nid = 'network://node/lan'\negress = ['tcp:198.51.100.2:80']\npublish = ['8080:80/tcp']\n\
         [[join]]\nid = 'task://tasks/t'\n",
    )
    .unwrap();
    node.ok(&["compose", "apply", "-f", file.to_str().unwrap()]);
    let shown = node.ok(&["network", "show", "lan"]);
    for text in [
        "10.91.0.0/24",
        "executor://executors/web running 10.91.0.2 8080->80/tcp",
    ] {
        assert!(shown.contains(text), "{text:?} is not in\n{shown}");
    }
    assert!(node.ok(&["network", "ls"]).contains("subnet4=10.91.0.0/24"));
    assert_eq!(
        code(&node.run(&["network", "rm", "lan"])).map(|code| code == 0),
        Some(false),
        "it is in use"
    );
    node.ok(&["stop", "web"]);
    node.ok(&["executor", "rm", "web"]);
    node.ok(&["task", "rm", "t"]);
    node.ok(&["network", "rm", "lan"]);
    drop(listener);
}

#[test]
fn bad_input_names_the_flag_and_the_field() {
    let world = World::new();
    let node = node(&world);
    for (args, said) in [
        (
            &["--network", "none", "--egress", "tcp:10.0.0.0/8"][..],
            "--egress",
        ),
        (
            &["--network", "none", "--egress", "tcp:nowhere:80"],
            "destinations[0]",
        ),
        (
            &["--network", "none", "--publish", "[::1]:8080:80"],
            "host_address",
        ),
        (&["--network", "none", "--publish", "80:0"], "port"),
        (&["--network", "none", "--dns", "resolver"], "--dns"),
        (
            &["--network", "none", "--dns", "127.0.0.1"],
            "--dns: dns[0]",
        ),
        (&["--egress", "all:10.0.0.0/8"], "--network"),
        (
            &["--network", "none", "--egress", "all:10.0.0.0/8"],
            "egress",
        ),
        (&["--network", "no-such"], "no-such"),
    ] {
        let output = node.run(&[&["run"], args, &["busybox", "true"]].concat());
        assert_eq!(code(&output), Some(125), "{args:?}: {}", shown(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(said),
            "{args:?}: {}",
            shown(&output)
        );
    }
    for (settings, said) in [("subnet4=10.0.0.0", "subnet4"), ("vlan=3", "vlan")] {
        let output = node.run(&["network", "create", "x", "--set", settings]);
        assert!(shown(&output).contains(said), "{}", shown(&output));
        assert!(!output.status.success());
    }
    let file = node.directory.join("compose.toml");
    std::fs::write(
        &file,
        "executor = 'e'\n[[join]]\nid = 'network://node/host'\negress = ['tcp:x:1']\n",
    )
    .unwrap();
    let output = node.run(&["compose", "apply", "-f", file.to_str().unwrap()]);
    assert!(
        shown(&output).contains("join[0]: egress[0]: destinations[0]"),
        "{}",
        shown(&output)
    );
    assert_eq!(node.ok(&["executor", "ls", "-a", "-q"]), "");
}
