//! What a task meets at its limits, and what its exit record says.

use super::{Node, Way, code, shown};

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
    // A bound sets nothing aside: it may be more than the disk has.
    assert_eq!(
        node.ok(&["run", "--disk", "1024g", "busybox", "echo", "runs"]),
        "runs\n"
    );
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

#[test]
fn in_a_pool_a_full_layer_or_volume_is_a_quota_that_is_reached() {
    let config = "[engine]\ndisk_pool = '256MiB'\n\n[[locations]]\nname = 'images'\nkinds = ['image']\nbacking = { type = 'overlay' }\n\n\
                  [[locations]]\nname = 'pool'\nkinds = ['volume']\nbacking = { type = 'btrfs', size = '256MiB' }\n\n\
                  [[locations]]\nname = 'rest'\nkinds = ['task', 'executor']\n";
    let node = Node::with(Way::Daemon, config);
    assert!(node.ok(&["info"]).contains("btrfs-pool"));
    let fill = |path: &str| {
        format!(
            "dd if=/dev/urandom of={path} bs=64k count=1000 conv=fsync 2>&1 | grep -o 'Quota exceeded\\|Disk quota exceeded'; stat -c %s {path}"
        )
    };
    let held = |said: &str| {
        let (full, size) = said.split_once('\n').unwrap();
        assert!(full.ends_with("uota exceeded"), "{said}");
        let size: u64 = size.trim().parse().unwrap();
        assert!((4 << 20..=8 << 20).contains(&size), "{size}");
    };
    let run = |args: &[&str]| {
        let args: Vec<_> = ["run", "--disk", "8m"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        node.ok(&args)
    };
    held(&run(&["busybox", "sh", "-c", &fill("/big")]));
    // It is a layer over the image, and belongs to the task's own root.
    let over = "echo x >> /etc/passwd && rm /bin/vi && stat -c %u / /etc/passwd; ls /bin/vi";
    let output = node.run(&["run", "--disk", "8m", "busybox", "sh", "-c", over]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n");
    // Files are counted by a file system of its own only.
    let files = "i=0; while touch /tmp/$i 2>/dev/null; do i=$((i+1)); [ $i -gt 300 ] && break; done; echo $i";
    let made = run(&["--disk-inodes", "100", "busybox", "sh", "-c", files]);
    assert!(made.trim().parse::<u32>().unwrap() <= 100, "{made}");

    node.ok(&["volume", "create", "v", "--size", "8m"]);
    held(&run(&[
        "-v",
        "v:/data",
        "busybox",
        "sh",
        "-c",
        &fill("/data/big"),
    ]));
    node.ok(&[
        "volume",
        "create",
        "w",
        "--parent",
        "volume://pool/v",
        "--size",
        "16m",
    ]);
    let copied = run(&[
        "-v",
        "w:/data",
        "busybox",
        "stat",
        "-c",
        "%s %u",
        "/data/big",
    ]);
    assert!(copied.ends_with(" 0\n"), "{copied}");
    // What runs keeps its layer and its volume over a death of ours; what has ended leaves nothing.
    node.ok(&[
        "run", "-d", "--name", "long", "--disk", "8m", "-v", "w:/data", "busybox", "sleep", "1000",
    ]);
    // Left by a death in the middle of a start.
    let left = node.data_dir().join("disks/0123456789abcdef0123-1");
    let made = std::process::Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(&left)
        .output();
    assert!(made.unwrap().status.success());
    node.restart();
    let started = std::time::Instant::now();
    while left.exists() {
        assert!(started.elapsed().as_secs() < 60, "it is not swept");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let said = node.ok(&[
        "exec",
        "long",
        "sh",
        "-c",
        "echo x > /f && cat /f && ls /data",
    ]);
    assert_eq!(said, "x\nbig\n");
    let of_layers = || {
        std::fs::read_dir(node.data_dir().join("disks"))
            .unwrap()
            .count()
    };
    assert_eq!(of_layers(), 1);
    node.ok(&["rm", "-f", "executor://rest/long", "task://rest/long"]);
    assert_eq!(of_layers(), 0);
}
