//! Copies in and out, by the command, embedded and through the daemon.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use super::{Node, both_ways};

/// Runs a command with something on its standard input.
fn fed(node: &Node, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = node
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses does not read it all.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn tree(at: &Path) {
    std::fs::create_dir_all(at.join("tree/sub")).unwrap();
    std::fs::write(at.join("tree/file"), "hello").unwrap();
    std::fs::set_permissions(at.join("tree/file"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::hard_link(at.join("tree/file"), at.join("tree/sub/again")).unwrap();
    symlink("../file", at.join("tree/sub/link")).unwrap();
}

both_ways!(files_are_copied_in_and_out);

fn files_are_copied_in_and_out(node: &Node) {
    let here = node.directory.join("here");
    std::fs::create_dir(&here).unwrap();
    tree(&here);
    let path = |name: &str| here.join(name).display().to_string();
    node.ok(&["volume", "create", "data"]);
    node.ok(&[
        "run",
        "-d",
        "--name",
        "x",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo inside > /made; ln -s /../../../../etc/passwd /out; sleep 1000",
    ]);

    // Into a directory that is there, into a volume of the executor, and under a new name.
    node.ok(&["cp", &path("tree"), "x:/tmp"]);
    let listed = node.ok(&["exec", "x", "ls", "-ln", "/tmp/tree"]);
    assert!(listed.contains("-rw-r-----    2 0        0"), "{listed}");
    assert_eq!(
        node.ok(&["exec", "x", "cat", "/tmp/tree/sub/link"]),
        "hello"
    );
    node.ok(&["cp", &path("tree"), "x:/data/new"]);
    node.ok(&["cp", &path("tree/."), "x:/data/new/sub"]);
    assert_eq!(
        node.ok(&["exec", "x", "cat", "/data/new/sub/sub/again"]),
        "hello"
    );
    let owners = node.ok(&["exec", "x", "stat", "-c", "%u:%g", "/data/new"]);
    assert_eq!(owners, "0:0\n");

    // The same files from the volume's side, whoever uses it.
    node.ok(&["cp", "volume:data:/new/file", &path("back")]);
    assert_eq!(std::fs::read(here.join("back")).unwrap(), b"hello");
    assert_eq!(std::fs::metadata(here.join("back")).unwrap().uid(), 0);
    node.ok(&["cp", "volume:data:/new", "x:/tmp/copied"]);
    assert_eq!(node.ok(&["exec", "x", "cat", "/tmp/copied/file"]), "hello");

    // Out as files and as archives; a link is a link and not what it points to.
    node.ok(&["cp", "x:/tmp/tree", &path("out")]);
    assert_eq!(std::fs::read(here.join("out/sub/again")).unwrap(), b"hello");
    assert_eq!(std::fs::metadata(here.join("out/file")).unwrap().nlink(), 2);
    node.ok(&["cp", "x:/out", &path("link")]);
    assert!(
        std::fs::symlink_metadata(here.join("link"))
            .unwrap()
            .is_symlink()
    );
    for form in ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"] {
        let archive = path(&format!("tree.{form}"));
        node.ok(&["cp", "--archive", form, "x:/tmp/tree", &archive]);
        let to = format!("x:/data/{form}");
        let fed = fed(node, &["cp", "-", &to], &std::fs::read(&archive).unwrap());
        assert!(fed.status.success(), "{form}: {fed:?}");
        let file = format!("/data/{form}/sub/again");
        assert_eq!(node.ok(&["exec", "x", "cat", &file]), "hello", "{form}");
    }

    refusals(node, &here);
    node.ok(&[
        "exec",
        "x",
        "sh",
        "-c",
        "! ls -a /tmp /data | grep portlayer-",
    ]);
    node.ok(&["rm", "-f", "executor://executors/x"]);
    let stopped = node.run(&["cp", "x:/made", &path("late")]);
    assert!(!stopped.status.success());
}

/// Nothing that is refused leaves anything.
fn refusals(node: &Node, here: &Path) {
    let before = node.ok(&["exec", "x", "ls", "-laR", "/data", "/tmp"]);
    let hostile = portlayer::archive::TarBuilder::new()
        .file("good", 0o644, b"x")
        .file("../../bad", 0o644, b"x")
        .finish();
    let code = |output: &Output| output.status.code();
    let refused = fed(node, &["cp", "-", "x:/data"], &hostile);
    assert_eq!(code(&refused), Some(2), "{refused:?}");
    let refused = fed(node, &["cp", "-", "volume:data:/"], &hostile);
    assert_eq!(code(&refused), Some(2), "{refused:?}");
    let large = vec![7; 3 << 20];
    std::fs::write(here.join("large"), &large).unwrap();
    let file = here.join("large").display().to_string();
    let refused = node.run(&["cp", "--max-bytes", "1000000", &file, "x:/data"]);
    assert!(!refused.status.success(), "{refused:?}");
    for (from, to) in [
        ("x:/nowhere", "."),
        ("nobody:/made", "."),
        ("volume:none:/", "."),
        (file.as_str(), "x:/nowhere/x"),
        ("/nonexistent", "x:/data"),
        ("-", "-"),
        (file.as_str(), "."),
    ] {
        let refused = node.run(&["cp", from, to]);
        assert!(!refused.status.success(), "{from} {to}: {refused:?}");
    }
    assert_eq!(
        node.ok(&["exec", "x", "ls", "-laR", "/data", "/tmp"]),
        before
    );
}
