//! What a task meets at its limits, and what its exit record says.

use super::{Node, code, shown};

#[test]
fn a_full_writable_layer_is_a_full_disk() {
    let node = Node::new();
    let fill = "dd if=/dev/zero of=/big bs=64k count=1000 2>&1 | grep -o 'No space left on device'; stat -c %s /big";
    let said = node.ok(&["run", "--disk", "8m", "busybox", "sh", "-c", fill]);
    let (full, size) = said.split_once('\n').unwrap();
    assert_eq!(full, "No space left on device");
    let size: u64 = size.trim().parse().unwrap();
    assert!((4 << 20..8 << 20).contains(&size), "{size}");
    // It is a layer over the image, and belongs to the task's own root.
    let over = node.ok(&[
        "run",
        "--disk",
        "8m",
        "busybox",
        "sh",
        "-c",
        "echo x >> /etc/passwd && stat -c %u / /etc/passwd; wc -l < /etc/passwd",
    ]);
    assert!(over.starts_with("0\n0\n"), "{over}");
    let files = "i=0; while touch /tmp/$i 2>/dev/null; do i=$((i+1)); [ $i -gt 300 ] && break; done; echo $i";
    let said = node.ok(&[
        "run",
        "--disk",
        "8m",
        "--disk-inodes",
        "100",
        "busybox",
        "sh",
        "-c",
        files,
    ]);
    let made: u32 = said.trim().parse().unwrap();
    assert!((50..=100).contains(&made), "{made}");
    for wrong in [&["--disk", "1m"][..], &["--disk-inodes", "10"]] {
        let args: Vec<_> = ["run"]
            .iter()
            .chain(wrong)
            .chain(&["busybox", "true"])
            .copied()
            .collect();
        let output = node.run(&args);
        assert_eq!(code(&output), Some(125), "{}", shown(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("limits.disk_"),
            "{}",
            shown(&output)
        );
    }
}

#[test]
fn memory_processes_and_open_files_end_where_the_limit_says() {
    let node = Node::new();
    let status = node.directory.join("status");
    let output = node.run(&[
        "run",
        "-m",
        "16m",
        "--status-file",
        status.to_str().unwrap(),
        "busybox",
        "tail",
        "/dev/zero",
    ]);
    assert_eq!(code(&output), Some(137), "{}", shown(&output));
    let exit: serde_json::Value = serde_json::from_slice(&std::fs::read(&status).unwrap()).unwrap();
    assert_eq!(exit["reason"], "oom");
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 3 & done; echo all";
    let output = node.run(&["run", "--pids-limit", "8", "busybox", "sh", "-c", forks]);
    assert_ne!(code(&output), Some(0), "{}", shown(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("all"));
    let opens = "(exec 3</dev/null 4</dev/null) && exec 7</dev/null 8</dev/null 9</dev/null";
    let output = node.run(&["run", "--ulimit", "nofile=8", "busybox", "sh", "-c", opens]);
    assert_ne!(code(&output), Some(0), "{}", shown(&output));
}
