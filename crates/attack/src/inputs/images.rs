//! Images whose files and configurations are made to mislead.

use std::io::Cursor;

use anyhow::Result;
use portlayer::PortLayer;
use portlayer::archive::TarBuilder;
use portlayer::element::{ElementId, ImageSpec, Kind, NewElement, Spec};
use portlayer::task::{ExecutorSpec, TaskSpec};
use portlayer_runtime::layout::{ImageBuilder, Packing, applets, busybox_tar};
use serde_json::{Value, json};

use super::report::{Must, Report, Seen};
use super::sentinel::SECRET;
use crate::node::{image, run_in, script};

/// What a task of a hostile image looks for: the secret by every way up, and whether what it writes arrives outside.
fn probe(secret: &str) -> String {
    format!(
        "for up in '' . .. ../.. ../../.. ../../../.. ../../../../../../../../../../..; do cat \"$up{secret}\" 2>/dev/null; done; \
         for place in /dev /proc /sys /etc /tmp /dev/shm /root; do echo x > $place/pl-escape 2>/dev/null; done; \
         cat /proc/self/root{secret} /proc/1/root{secret} 2>/dev/null; id; exit 0"
    )
}

/// Layers on busybox.
pub(super) async fn trees(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let base: ElementId = "image://images/busybox".parse()?;
    let outside = report.sentinels().outside().display().to_string();
    let secret = report.sentinels().secret().display().to_string();
    let new = TarBuilder::new;
    let mut layers: Vec<(String, TarBuilder)> = Vec::new();
    for directory in ["dev", "proc", "sys"] {
        for target in [outside.as_str(), "/", "../../../..", "etc", "nowhere"] {
            layers.push((
                format!("/{directory} is a link to {target}"),
                new().symlink(directory, target),
            ));
        }
        layers.push((
            format!("/{directory} is a file"),
            new().file(directory, 0o666, b"x"),
        ));
        layers.push((
            format!("/{directory} is gone"),
            new().file(&format!(".wh.{directory}"), 0o644, b""),
        ));
        layers.push((format!("/{directory} has mode 0"), new().dir(directory, 0)));
    }
    for (path, target) in [
        ("dev/null", outside.as_str()),
        ("dev/console", &secret),
        ("dev/shm", &outside),
        ("dev/pts", &outside),
        ("dev/ptmx", &secret),
        ("dev/.portlayer", &outside),
        ("dev/.portlayer/init", &secret),
        ("proc/sys", &outside),
        ("proc/self", &outside),
        ("proc/sysrq-trigger", &secret),
        ("sys/fs", &outside),
        ("sys/fs/cgroup", &outside),
        ("etc", &outside),
        ("etc/passwd", &secret),
        ("etc/group", &secret),
        ("etc/hosts", &secret),
        ("etc/hostname", &secret),
        ("etc/resolv.conf", &secret),
        ("tmp", &outside),
        ("root", &outside),
        ("bin", &outside),
        ("bin/sh", "/proc/self/exe"),
        ("lib64", "../../../../lib64"),
    ] {
        layers.push((
            format!("/{path} is a link out"),
            new().symlink(path, target),
        ));
    }
    for (what, passwd) in [
        ("lines without end", vec![b'r'; 3 << 20]),
        ("5 MiB", b"a:x:1:1::/:\n".repeat(500_000)),
        (
            "ids beyond 32 bits",
            b"root:x:4294967296:4294967296::/:/bin/sh\n".to_vec(),
        ),
        ("negative ids", b"root:x:-1:-1::/:/bin/sh\n".to_vec()),
        (
            "root is somebody",
            b"root:x:1000:1000::/:/bin/sh\n".to_vec(),
        ),
        (
            "home outside",
            format!("root:x:0:0::{outside}:/bin/sh\n").into_bytes(),
        ),
        (
            "home of escapes",
            b"root:x:0:0::/\x1b[2J\n../..:/bin/sh\n".to_vec(),
        ),
        ("not utf-8", b"root:\xff\xfe:0:0::/:\n".to_vec()),
        ("NULs", vec![0; 100_000]),
        ("two roots", b"root:x:0:0::/:\nroot:x:99:99::/:\n".to_vec()),
    ] {
        layers.push((
            format!("passwd: {what}"),
            new().file("etc/passwd", 0o644, &passwd),
        ));
        layers.push((
            format!("group: {what}"),
            new().file("etc/group", 0o644, &passwd),
        ));
    }
    layers.push((
        "passwd is a directory".to_owned(),
        new().dir("etc/passwd", 0o755),
    ));
    layers.push((
        "a shell that is us (CVE-2019-5736)".to_owned(),
        new().file("bin/sh", 0o755, b"#!/proc/self/exe\n"),
    ));
    for (at, (what, tar)) in layers.into_iter().enumerate() {
        let name = format!("tree-{at}");
        let attack = async {
            let made = image(layer, &name, Some(&base), tar.finish()).await;
            let made = match made {
                Err(error) => return Seen::Refused(format!("{error:#}")),
                Ok(id) => id,
            };
            let task = TaskSpec {
                user: Some("root".to_owned()),
                ..script(&probe(&secret))
            };
            let seen = judged(run_in(layer, &name, (ExecutorSpec::default(), task), &name).await);
            match layer.delete(&made).await {
                Ok(()) => seen,
                Err(error) => Seen::Escaped(format!("the image stays: {error}")),
            }
        };
        report
            .try_async("images", what, Must::Contained, attack)
            .await;
    }
    Ok(())
}

/// Configurations that lie.
pub(super) async fn configurations(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let binary = std::path::Path::new("/bin/busybox");
    let tar = busybox_tar(&std::fs::read(binary)?, &applets(binary)?);
    let outside = report.sentinels().outside().display().to_string();
    let secret = report.sentinels().secret().display().to_string();
    let mut cases: Vec<(String, &str, Value)> = Vec::new();
    let mut add = |key: &'static str, value: Value| {
        let shown: String = value.to_string().chars().take(50).collect();
        cases.push((format!("{key} = {shown}"), key, value));
    };
    for value in [
        json!(["A=1\nLD_PRELOAD=/x.so"]),
        json!(["no equals"]),
        json!(["=x"]),
        json!(["A=\u{0}"]),
        json!("PATH=/"),
        json!([1]),
        json!(["PATH=", "LD_PRELOAD=/lib/evil.so", "GCONV_PATH=/tmp"]),
    ] {
        add("Env", value);
    }
    add("Env", Value::from(vec!["X=y"; 100_000]));
    add("Env", json!([format!("X={}", "y".repeat(1 << 20))]));
    for value in [
        json!("/proc/self/fd/7"),
        json!("/proc/self/cwd/../.."),
        json!("relative"),
        json!("../.."),
        json!(outside),
        json!("/x\u{0}y"),
        json!("/dev/.portlayer"),
        json!(7),
        json!("/a".repeat(3000)),
    ] {
        add("WorkingDir", value);
    }
    for value in [
        json!("4294967296"),
        json!("-1"),
        json!("root:4294967295"),
        json!("nobody-there"),
        json!("0:0:0"),
        json!("root\n"),
        json!(":"),
        json!("../../etc/passwd"),
        json!("2147483648"),
        json!({"a": 1}),
    ] {
        add("User", value);
    }
    for value in [
        json!(["/proc/self/exe", "--", "/bin/true"]),
        json!(["/proc/self/fd/5"]),
        json!(["/dev/.portlayer/init", "x"]),
        json!([""]),
        json!([]),
        json!("sh"),
        json!(["/bin/sh\u{0}x"]),
    ] {
        add("Entrypoint", value);
    }
    for value in [
        json!({"../../x": {}}),
        json!({"/proc": {}}),
        json!({"/dev": {}}),
        json!({"/": {}}),
        json!({"": {}}),
        json!([1]),
    ] {
        add("Volumes", value);
    }
    for value in [
        json!("SIGNOTHING"),
        json!("9999"),
        json!("-9"),
        json!(9),
        json!("SIGKILL\n"),
    ] {
        add("StopSignal", value);
    }
    for value in [
        json!({"\u{1b}]52;c;cm0=\u{7}": "x"}),
        json!({"a": 1}),
        json!("x"),
    ] {
        add("Labels", value);
    }
    for (at, (what, key, value)) in cases.into_iter().enumerate() {
        let name = format!("config-{at}");
        let archive = ImageBuilder::new()
            .layer(&tar, Packing::Plain)?
            .config(key, value)
            .oci_archive();
        let attack = async {
            let id = match ElementId::new(Kind::Image, "images", &name) {
                Ok(id) => id,
                Err(error) => return Seen::Refused(error.to_string()),
            };
            let new = NewElement::new(id.clone(), Spec::Image(ImageSpec::default()))
                .data(Cursor::new(archive));
            if let Err(error) = layer.create(new).await {
                return Seen::Refused(error.to_string());
            }
            let task = match key {
                // As the image says.
                "Entrypoint" => TaskSpec::default(),
                _ => script(&probe(&secret)),
            };
            let seen = judged(run_in(layer, &name, (ExecutorSpec::default(), task), &name).await);
            match layer.delete(&id).await {
                Ok(()) => seen,
                Err(error) => Seen::Escaped(format!("the image stays: {error}")),
            }
        };
        report
            .try_async("configurations", what, Must::Contained, attack)
            .await;
    }
    Ok(())
}

/// What a run came to: its output with the secret in it is an escape.
pub(super) fn judged(ran: Result<(String, String)>) -> Seen {
    match ran {
        Err(error) => Seen::Refused(format!("{error:#}")),
        Ok((exit, output)) if output.contains(SECRET) => {
            Seen::Escaped(format!("the secret was read; {exit}"))
        }
        Ok((exit, _)) => Seen::Contained(exit),
    }
}
