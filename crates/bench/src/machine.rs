//! The machine a run was made on: what must be the same before two runs may be compared.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Facts that move the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// File system below the benchmark's directory.
    pub(crate) file_system: String,
    /// `v1`, `hybrid` or `v2`.
    pub(crate) cgroups: String,
    /// Without it a start on an idle machine waits for an RCU grace period per cgroup hierarchy
    /// (performance.md 3.1): everyone's figures move, so ratios hold within one state only.
    pub(crate) favordynmods: bool,
    pub(crate) containerd: String,
    pub(crate) runc: String,
    /// Load average over one minute when the run began.
    pub(crate) load: f64,
}

impl Machine {
    /// Looks around. Errors: a program that must be compared with is missing.
    pub(crate) fn look(directory: &Path) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let cgroup_mounts: Vec<[&str; 4]> = mounts.lines().filter_map(mount_fields).collect();
        let unified = cgroup_mounts
            .iter()
            .any(|[_, _, kind, _]| *kind == "cgroup2");
        let legacy = cgroup_mounts
            .iter()
            .any(|[_, _, kind, _]| *kind == "cgroup");
        let favoured =
            |mount: &&[&str; 4]| mount[3].split(',').any(|option| option == "favordynmods");
        Ok(Self {
            cpus: std::thread::available_parallelism()?.get(),
            memory_mib: meminfo_kib("MemTotal:")? / 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            file_system: file_system(&mounts, directory)?,
            cgroups: match (unified, legacy) {
                (true, true) => "hybrid",
                (true, false) => "v2",
                _ => "v1",
            }
            .to_owned(),
            favordynmods: cgroup_mounts
                .iter()
                .filter(|[_, _, kind, _]| kind.starts_with("cgroup"))
                .any(|mount| favoured(&mount)),
            containerd: version("containerd", 2)?,
            runc: version("runc", 2)?,
            load: std::fs::read_to_string("/proc/loadavg")?
                .split(' ')
                .next()
                .context("/proc/loadavg is empty")?
                .parse()?,
        })
    }
}

fn mount_fields(line: &str) -> Option<[&str; 4]> {
    let mut fields = line.split(' ');
    Some([
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    ])
}

/// Type of the mount with the longest path that holds `directory`.
fn file_system(mounts: &str, directory: &Path) -> Result<String> {
    mounts
        .lines()
        .filter_map(mount_fields)
        .filter(|[_, path, ..]| directory.starts_with(path))
        .max_by_key(|[_, path, ..]| path.len())
        .map(|[_, _, kind, _]| kind.to_owned())
        .with_context(|| format!("no mount holds {}", directory.display()))
}

/// The `word`th word of what `program --version` says first.
fn version(program: &str, word: usize) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("{program} is not installed"))?;
    ensure!(output.status.success(), "{program} --version failed");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .nth(word)
        .map(str::to_owned)
        .with_context(|| format!("{program} --version says nothing"))
}

fn meminfo_kib(field: &str) -> Result<u64> {
    status_kib("/proc/meminfo", field)
}

/// Resident memory of this process in MiB.
pub(crate) fn resident_mib() -> Result<f64> {
    resident_mib_of("self")
}

/// Resident memory of a process, as `/proc` names it, in MiB.
pub(crate) fn resident_mib_of(process: &str) -> Result<f64> {
    let kib = status_kib(&format!("/proc/{process}/status"), "VmRSS:")?;
    Ok(f64::from(u32::try_from(kib)?) / 1024.0)
}

fn status_kib(path: &str, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("{path} has no {field}"))?;
    let number = line.split_whitespace().next().context("no number")?;
    Ok(number.parse()?)
}

/// The commit the sources are at, with `-dirty` when they were changed since.
pub(crate) fn commit() -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git")
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .output()
            .context("git is not installed")?;
        ensure!(
            output.status.success(),
            "git {} failed",
            arguments.join(" ")
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Ok(if changed {
        format!("{commit}-dirty")
    } else {
        commit
    })
}

/// Waits at least `least` and then, up to a second longer, until the processors were four fifths idle for as long.
/// Returns whether they were.
pub(crate) async fn quiet(least: Duration) -> Result<bool> {
    const TRIES: u32 = 16;
    for _ in 0..TRIES {
        let before = idle_and_all()?;
        tokio::time::sleep(least).await;
        let after = idle_and_all()?;
        let (idle, all) = (after.0 - before.0, after.1 - before.1);
        if idle * 5 >= all * 4 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Clock ticks of all processors since boot: idle ones and all.
fn idle_and_all() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks = line
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()?;
    let idle = ticks.get(3).context("/proc/stat has no idle time")? + ticks.get(4).unwrap_or(&0);
    Ok((idle, ticks.iter().take(8).sum()))
}
