//! The default profile: what a task finds when it tries.

use super::{Node, code, shown};

/// What a task says about itself, by key.
fn status<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.strip_prefix(':')).unwrap().trim()
}

#[test]
fn a_task_is_filtered_and_holds_what_the_profile_says() {
    let node = Node::new();
    let text = node.ok(&["run", "busybox", "cat", "/proc/self/status"]);
    assert_eq!(status(&text, "Seccomp"), "2");
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert_eq!(status(&text, "CapBnd"), "00000000000405fb");
    assert_eq!(status(&text, "CapEff"), "00000000000405fb");
    let user = node.ok(&[
        "run",
        "-u",
        "1000:1000",
        "busybox",
        "cat",
        "/proc/self/status",
    ]);
    assert_eq!(status(&user, "CapEff"), "0000000000000000");

    node.ok(&["executor", "create", "plain"]);
    let shown = node.json(&["executor", "show", "plain", "--security", "-o", "json"]);
    assert_eq!(shown["no_new_privileges"], true);
    assert_eq!(shown["capabilities"].as_array().unwrap().len(), 10);
    assert_eq!(shown["seccomp"]["otherwise"], "EPERM");
    assert_eq!(shown["masked_paths"].as_array().unwrap().len(), 12);
}

#[test]
fn what_reaches_out_of_the_container_is_refused() {
    let node = Node::new();
    for (attempt, why) in [
        ("unshare -U true", "a user name space of its own"),
        ("unshare -m true", "a mount name space of its own"),
        ("mount -t tmpfs none /tmp", "a mount"),
        (
            "chroot / mount -t proc none /proc",
            "a mount behind a chroot",
        ),
        ("mknod /tmp/disk b 8 0", "a disk"),
        ("reboot -f", "a reboot"),
        ("hostname other", "another host name"),
        (
            "! date -s 2000-01-01 2>&1 | grep -q permitted",
            "another time",
        ),
        ("echo 1 > /proc/sys/kernel/panic", "a kernel setting"),
        ("echo b > /proc/sysrq-trigger", "the magic key"),
        (
            "cat /proc/kcore | head -c 1 | grep -q .",
            "the kernel's memory",
        ),
        ("cat /proc/keys | grep -q .", "keys of the host"),
        ("ls /sys/firmware | grep -q .", "the firmware"),
        ("mkdir /sys/fs/cgroup/memory/escape", "a cgroup"),
        ("cat /dev/mem", "memory by its device"),
        ("dmesg | grep -q .", "the kernel's log"),
    ] {
        let output = node.run(&["run", "busybox", "/bin/busybox", "sh", "-c", attempt]);
        let code = code(&output);
        assert!(
            code.is_some_and(|code| code != 0 && code != 125),
            "{why}: {attempt}: {}",
            shown(&output)
        );
    }
}

#[test]
fn privileged_is_what_the_host_has_and_no_more() {
    let node = Node::new();
    let text = node.ok(&["run", "--privileged", "busybox", "cat", "/proc/self/status"]);
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(status(&text, "CapBnd"), status(&ours, "CapBnd"));
    assert_eq!(status(&text, "Seccomp"), "0");
}
