//! User ids of an executor's own.

use std::os::unix::fs::MetadataExt;

use super::{Node, code, shown};

/// The host's id of the container's root, as a task in it sees its map.
fn first(node: &Node, executor: &str) -> u32 {
    let map = node.ok(&["exec", executor, "cat", "/proc/self/uid_map"]);
    let fields: Vec<u32> = map.split_whitespace().map(|f| f.parse().unwrap()).collect();
    assert_eq!((fields[0], fields[2]), (0, 65_536), "{map}");
    fields[1]
}

#[test]
fn every_executor_has_ids_of_its_own_and_volumes_look_alike_to_all() {
    let node = Node::new();
    node.ok(&["volume", "create", "shared"]);
    for name in ["a", "b"] {
        node.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "-v",
            "shared:/shared",
            "busybox",
            "sh",
            "-c",
            "echo $$; exec sleep 1000",
        ]);
    }
    let (a, b) = (first(&node, "a"), first(&node, "b"));
    assert_ne!(a, b);
    assert!(a >= 1 << 28 && b >= 1 << 28, "{a} {b}");
    let security = node.json(&["executor", "show", "a", "--security", "-o", "json"]);
    assert_eq!(security["ids"]["first"], a);

    // What one writes belongs to the same ids for the other, and for whoever comes later.
    node.ok(&["exec", "a", "sh", "-c", "echo root > /shared/root"]);
    node.ok(&[
        "exec",
        "-u",
        "33:34",
        "a",
        "sh",
        "-c",
        "cd /tmp && echo web > web",
    ]);
    node.ok(&[
        "exec",
        "a",
        "sh",
        "-c",
        "cp -p /tmp/web /shared/web && chmod 600 /shared/*",
    ]);
    let listed = node.ok(&["exec", "b", "ls", "-n", "/shared"]);
    let owners: Vec<Vec<&str>> = listed
        .lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| line.split_whitespace().skip(2).take(2).collect())
        .collect();
    assert_eq!(owners, [["0", "0"], ["33", "34"]], "{listed}");
    assert_eq!(node.ok(&["exec", "b", "cat", "/shared/web"]), "web\n");
    assert_eq!(
        node.ok(&["exec", "-u", "33:34", "b", "cat", "/shared/web"]),
        "web\n"
    );
    let other = node.run(&["exec", "-u", "35:34", "b", "cat", "/shared/web"]);
    assert_eq!(code(&other), Some(1), "{}", shown(&other));

    // On the host neither is root.
    let status = |name: &str| node.ok(&["exec", name, "cat", "/proc/1/status"]);
    assert!(status("a").contains("Uid:\t0\t0\t0\t0"));
    let sleepers = sleepers();
    assert!(
        sleepers.contains(&a) && sleepers.contains(&b),
        "{sleepers:?}"
    );

    // A range belongs to its executor over stop and start, and is free when the executor is gone.
    node.ok(&["stop", "a"]);
    node.ok(&["stop", "b"]);
    let again = node.json(&["executor", "show", "a", "--security", "-o", "json"]);
    assert_eq!(again["ids"]["first"], a);
    node.ok(&[
        "rm",
        "executor://executors/a",
        "executor://executors/b",
        "task://tasks/a",
        "task://tasks/b",
    ]);
}

/// Owners on the host of the processes of these tests that sleep.
fn sleepers() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let sleeping = entries.filter(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
    });
    sleeping
        .filter_map(|entry| std::fs::metadata(entry.path()).ok().map(|stat| stat.uid()))
        .collect()
}

#[test]
fn the_hosts_ids_have_to_be_asked_for() {
    let node = Node::new();
    for flag in ["--host-users", "--privileged"] {
        let map = node.ok(&["run", flag, "busybox", "cat", "/proc/self/uid_map"]);
        assert_eq!(
            map.split_whitespace().last(),
            Some("4294967295"),
            "{flag}: {map}"
        );
    }
    // An executor on the host's network has ids of its own all the same, and sees /sys read-only.
    let output = node.run(&[
        "run",
        "--network",
        "host",
        "busybox",
        "sh",
        "-c",
        "cat /proc/self/uid_map; touch /sys/x 2>/dev/null || ls /sys/class",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("65536") && text.contains("net"),
        "{}",
        shown(&output)
    );
}

#[test]
fn users_homes_and_working_directories() {
    let node = Node::new();
    let said = node.ok(&[
        "run",
        "-u",
        "1000:5",
        "-w",
        "/made/for/me",
        "busybox",
        "sh",
        "-c",
        "id -u; id -g; pwd; touch mine && ls -nd . /made | cut -c12-30",
    ]);
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[..3], [["1000"], ["5"], ["/made/for/me"]], "{said}");
    for owner in &lines[3..] {
        assert_eq!(owner[owner.len() - 2..], ["1000", "5"], "{said}");
    }
    // In a volume, too, where it belongs to the same user for everyone.
    node.ok(&["volume", "create", "v"]);
    node.ok(&[
        "run", "-v", "v:/v", "-u", "7:8", "-w", "/v/w", "busybox", "touch", "here",
    ]);
    let listed = node.ok(&[
        "run",
        "-v",
        "v:/v",
        "busybox",
        "sh",
        "-c",
        "stat -c %u:%g /v/w /v/w/here",
    ]);
    assert_eq!(listed, "7:8\n7:8\n");
    // And for a further process of a running executor.
    node.ok(&["run", "-d", "--name", "x", "busybox", "sleep", "1000"]);
    let made = node.ok(&[
        "exec",
        "x",
        "-u",
        "9:9",
        "-w",
        "/later/on",
        "sh",
        "-c",
        "pwd; stat -c %u .",
    ]);
    assert_eq!(made, "/later/on\n9\n");
    node.ok(&["rm", "-f", "executor://executors/x", "task://tasks/x"]);
    for (user, why) in [
        ("nobody-here", "a name that is not in the image"),
        ("70000", "an id no executor has"),
    ] {
        let output = node.run(&["run", "-u", user, "busybox", "true"]);
        assert_eq!(code(&output), Some(125), "{why}: {}", shown(&output));
    }
}

#[test]
fn a_volume_filled_from_the_image_and_one_attached_live_have_the_containers_ids() {
    let node = Node::new();
    node.ok(&["volume", "create", "etc"]);
    let listed = node.ok(&[
        "run",
        "--mount",
        "source=etc,target=/etc,copy-up",
        "busybox",
        "sh",
        "-c",
        "stat -c %u:%g /etc /etc/passwd",
    ]);
    assert_eq!(listed, "0:0\n0:0\n");
    // On disk it is root's as well: an archive of it carries no executor's ids.
    let tar = node.directory.join("etc.tar");
    node.ok(&[
        "export",
        "volume://volumes/etc",
        "--to",
        tar.to_str().unwrap(),
    ]);
    let mut archive = tar::Archive::new(std::fs::File::open(&tar).unwrap());
    for entry in archive.entries().unwrap() {
        assert_eq!(entry.unwrap().header().uid().unwrap(), 0);
    }

    node.ok(&["run", "-d", "--name", "x", "busybox", "sleep", "1000"]);
    let handle = node.directory.join("h");
    let handle = handle.to_str().unwrap();
    node.ok(&["compose", "open", "x", "-H", handle]);
    node.ok(&[
        "compose",
        "join",
        "-H",
        handle,
        "volume://volumes/etc",
        "--target",
        "/deep/down/etc",
    ]);
    node.ok(&["compose", "bind", "-H", handle, "volume://volumes/etc"]);
    node.ok(&["compose", "commit", "-H", handle]);
    let listed = node.ok(&[
        "exec", "x", "sh", "-c", "stat -c %u /deep /deep/down/etc /deep/down/etc/passwd; echo y >> /deep/down/etc/new && stat -c %u /deep/down/etc/new",
    ]);
    assert_eq!(listed, "0\n0\n0\n0\n");
    node.ok(&["rm", "-f", "executor://executors/x", "task://tasks/x"]);
}
