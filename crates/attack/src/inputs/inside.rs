//! Attempts from inside a running task; `inside/main.rs` makes them.

use anyhow::{Context, Result};
use portlayer::PortLayer;
use portlayer::archive::TarBuilder;
use portlayer::task::{ExecutorSpec, Isolation, TaskSpec};

use super::report::{Must, Report, Seen};
use crate::node::{image, run_in};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inside"));

/// Fewer lines than this and the program ended early.
const LEAST: usize = 120;

/// As root of the container, as a user of it, and as root with the capabilities that a caller may give back.
pub(super) async fn attempts(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let base = "image://images/busybox".parse()?;
    let tar = TarBuilder::new().file("inside", 0o755, PROGRAM).finish();
    let made = image(layer, "inside", Some(&base), tar).await?;
    let ways: [(&str, Option<&str>); 2] = [("root", None), ("user", Some("1000:1000"))];
    for (name, user) in ways {
        let task = TaskSpec {
            argv: vec![
                "/inside".to_owned(),
                report.sentinels().secret().display().to_string(),
            ],
            user: user.map(str::to_owned),
            ..TaskSpec::default()
        };
        let executor = ExecutorSpec {
            isolation: Isolation::default(),
            ..ExecutorSpec::default()
        };
        let (exit, output) = run_in(layer, &format!("inside-{name}"), (executor, task), "inside")
            .await
            .with_context(|| format!("attempts as {name}"))?;
        let lines: Vec<_> = output.lines().filter(|line| line.contains('\t')).collect();
        anyhow::ensure!(
            lines.len() >= LEAST,
            "the attempts as {name} ended after {}: {exit}",
            lines.len()
        );
        for line in lines {
            let mut parts = line.splitn(3, '\t');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            let (attempt, verdict, seen) = (next(), next(), next());
            let seen = match verdict.as_str() {
                "held" => Seen::Contained(seen),
                _ => Seen::Escaped(seen),
            };
            let input = format!("{attempt} -> as {name}");
            report
                .try_async("inside", input, Must::Contained, async { seen })
                .await;
        }
    }
    layer.delete(&made).await?;
    Ok(())
}
