//! Flags that say what to run and what it may use, shared by `run`, `exec`, `task create` and `executor create`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use portlayer::task::{
    ExecutorSpec, Interaction, Isolation, Limits, RestartPolicy, Rlimit, StopSpec, TaskSpec,
};

use super::failure::Failure;
use super::parse;

/// What to run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskFlags {
    /// Environment: NAME=VALUE, or NAME for the value it has here (repeat)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File of such entries, one per line (repeat)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Environment variable that is a secret: its value is taken from here and shown nowhere (repeat)
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User in the image: name, uid, uid:gid or name:group
    #[arg(short, long)]
    user: Option<String>,
    /// Further group, by number (repeat)
    #[arg(long, value_name = "GID")]
    group_add: Vec<u32>,
    /// Time the task may run; it ends with 124
    #[arg(long, visible_alias = "timeout", value_name = "TIME", value_parser = parse::duration)]
    deadline: Option<Duration>,
    /// Signal that asks the task to stop [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = parse::signal)]
    stop_signal: Option<i32>,
    /// Time between that signal and KILL [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    stop_timeout: Option<Duration>,
    /// Resource limit: NAME=SOFT[:HARD], e.g. nofile=1024:4096 (repeat)
    #[arg(long, value_name = "LIMIT", value_parser = rlimit)]
    ulimit: Vec<Rlimit>,
    /// Restart policy: no, on-failure[:MAX] or always
    #[arg(long, value_name = "POLICY", value_parser = restart, default_value = "no")]
    restart: RestartPolicy,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the task a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
}

impl TaskFlags {
    /// The task these flags describe. Reads the environment files and the environment of this process.
    pub(crate) fn spec(&self, argv: &[String]) -> Result<TaskSpec, Failure> {
        let mut spec = TaskSpec {
            argv: argv.to_vec(),
            ..TaskSpec::default()
        };
        self.apply(&mut spec)?;
        Ok(spec)
    }

    /// Puts what the flags say over a definition from a file.
    pub(crate) fn apply(&self, spec: &mut TaskSpec) -> Result<(), Failure> {
        let here = |name: &str| std::env::var(name).ok();
        for path in &self.env_file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::from(error)
                    .context(format!("reading {} failed", path.display()))
                    .exit(2)
            })?;
            let entries = parse::env_file(&text, here)
                .map_err(|rule| Failure::usage(format!("{}: {rule}", path.display())))?;
            spec.env.extend(entries);
        }
        for entry in &self.env {
            spec.env
                .extend(parse::env_entry(entry, here).map_err(Failure::usage)?);
        }
        for name in &self.secret_env {
            let value = here(name)
                .ok_or_else(|| Failure::usage(format!("secret {name:?} is not set here")))?;
            spec.secrets.push(portlayer::task::Secret {
                name: name.clone(),
                value,
            });
        }
        spec.extra_gids.extend(&self.group_add);
        spec.rlimits.extend(self.ulimit.iter().cloned());
        if let Some(dir) = &self.workdir {
            spec.cwd = Some(dir.clone());
        }
        if let Some(user) = &self.user {
            spec.user = Some(user.clone());
        }
        if let Some(deadline) = self.deadline {
            spec.deadline_ms = Some(milliseconds(deadline));
        }
        if self.stop_signal.is_some() || self.stop_timeout.is_some() {
            spec.stop = StopSpec {
                signal: self.stop_signal.or(spec.stop.signal),
                grace_ms: self.stop_timeout.map_or(spec.stop.grace_ms, milliseconds),
            };
        }
        if self.restart != RestartPolicy::Never {
            spec.restart = self.restart.clone();
        }
        spec.terminal |= self.tty;
        spec.interaction = Interaction {
            stdin: spec.interaction.stdin || self.interactive,
        };
        Ok(())
    }
}

/// What it may use.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Executor")]
pub(crate) struct ExecutorFlags {
    /// Host name inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Memory, page cache included
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Memory and swap together [default: no swap]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory_swap: Option<u64>,
    /// Processors, as a number with a fraction
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<i64>,
    /// Relative weight, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Processes and threads [default: 1024]
    #[arg(long, visible_alias = "pids", value_name = "NUMBER")]
    pids_limit: Option<u32>,
    /// Size of the writable layer
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    disk: Option<u64>,
    /// Files the writable layer can hold; needs --disk
    #[arg(long, value_name = "NUMBER")]
    disk_inodes: Option<u64>,
    /// Capability to add, e.g. NET_RAW (repeat)
    #[arg(long, value_name = "CAP", value_parser = capability)]
    cap_add: Vec<String>,
    /// Capability to take away, or ALL (repeat)
    #[arg(long, value_name = "CAP", value_parser = capability)]
    cap_drop: Vec<String>,
    /// All capabilities, no masked paths, no seccomp
    #[arg(long)]
    privileged: bool,
    /// Let set-id programs gain privileges
    #[arg(long)]
    allow_new_privileges: bool,
    /// Use the host's user ids: root inside is root outside
    #[arg(long)]
    host_users: bool,
    /// Let programs of the processor's other instruction set run (32-bit x86)
    #[arg(long)]
    compat_programs: bool,
}

impl ExecutorFlags {
    /// The executor these flags describe.
    pub(crate) fn spec(&self) -> ExecutorSpec {
        ExecutorSpec {
            hostname: self.hostname.clone(),
            limits: self.limits(),
            isolation: Isolation {
                privileged: self.privileged,
                add_capabilities: self.cap_add.clone(),
                drop_capabilities: self.cap_drop.clone(),
                allow_new_privileges: self.allow_new_privileges,
                host_users: self.host_users,
                compat_programs: self.compat_programs,
            },
        }
    }

    /// Only the limits.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory,
            memory_swap_bytes: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_quota_us: self.cpus,
            pids: self.pids_limit,
            disk_bytes: self.disk,
            disk_inodes: self.disk_inodes,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Processors as microseconds of each 100 ms.
fn cpus(text: &str) -> Result<i64, String> {
    let expected = || format!("expected processors as in 2 or 0.5, not {text:?}");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 5 {
        return Err(expected());
    }
    let whole: u32 = whole.parse().map_err(|_| expected())?;
    let part: u32 = format!("{fraction:0<5}").parse().map_err(|_| expected())?;
    match i64::from(whole) * 100_000 + i64::from(part) {
        // The kernel takes no quota below a millisecond.
        quota @ 1_000.. => Ok(quota),
        _ => Err("at least 0.01 processors".to_owned()),
    }
}

/// `CAP_` and upper case are added where missing. Whether there is such a capability is the port layer's to say.
fn capability(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if upper.is_empty() {
        return Err("a capability has a name".to_owned());
    }
    if upper == "ALL" || upper.starts_with("CAP_") {
        Ok(upper)
    } else {
        Ok(format!("CAP_{upper}"))
    }
}

fn rlimit(text: &str) -> Result<Rlimit, String> {
    let expected = || format!("expected NAME=SOFT[:HARD], not {text:?}");
    let value = |text: &str| match text {
        "unlimited" | "-1" => Ok(u64::MAX),
        number => number.parse().map_err(|_| expected()),
    };
    let (name, limits) = text.split_once('=').ok_or_else(expected)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Ok(Rlimit {
        name: name.to_ascii_lowercase(),
        soft: value(soft)?,
        hard: value(hard)?,
    })
}

fn restart(text: &str) -> Result<RestartPolicy, String> {
    /// First wait before a restart; doubled each time.
    const BACKOFF_MS: u64 = 100;
    let (policy, max) = text.split_once(':').unwrap_or((text, ""));
    match (policy, max) {
        ("no" | "never", "") => Ok(RestartPolicy::Never),
        ("always", "") => Ok(RestartPolicy::Always {
            backoff_ms: BACKOFF_MS,
        }),
        ("on-failure", max) => Ok(RestartPolicy::OnFailure {
            max: match max {
                "" => 0,
                max => max
                    .parse()
                    .map_err(|_| format!("{max:?} is no number of restarts"))?,
            },
            backoff_ms: BACKOFF_MS,
        }),
        _ => Err(format!(
            "expected no, on-failure[:MAX] or always, not {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        task: TaskFlags,
        #[command(flatten)]
        executor: ExecutorFlags,
    }

    fn parse(args: &[&str]) -> Line {
        Line::try_parse_from(["x"].iter().chain(args)).unwrap()
    }

    #[test]
    fn flags_become_specs() {
        let line = parse(&[
            "-eA=1",
            "-e",
            "B=2",
            "-w",
            "/w",
            "-u",
            "1:2",
            "--timeout",
            "1m",
            "--stop-signal",
            "INT",
            "--stop-timeout",
            "3",
            "--ulimit",
            "nofile=10:20",
            "--restart",
            "on-failure:3",
            "-i",
            "-t",
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "--pids",
            "7",
            "--cap-add",
            "net_raw",
            "--cap-drop",
            "all",
            "--hostname",
            "h",
        ]);
        let task = line.task.spec(&["sh".to_owned()]).unwrap();
        assert_eq!(
            task.env,
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned())
            ]
        );
        assert_eq!(
            (task.cwd.as_deref(), task.user.as_deref()),
            (Some("/w"), Some("1:2"))
        );
        assert_eq!(
            (task.deadline_ms, task.stop.signal, task.stop.grace_ms),
            (Some(60_000), Some(2), 3_000)
        );
        assert_eq!((task.rlimits[0].soft, task.rlimits[0].hard), (10, 20));
        assert_eq!(
            task.restart,
            RestartPolicy::OnFailure {
                max: 3,
                backoff_ms: 100
            }
        );
        assert!(task.terminal && task.interaction.stdin);
        let executor = line.executor.spec();
        assert_eq!(executor.limits.memory_bytes, Some(64 << 20));
        assert_eq!(
            (executor.limits.cpu_quota_us, executor.limits.pids),
            (Some(150_000), Some(7))
        );
        assert_eq!(executor.isolation.add_capabilities, ["CAP_NET_RAW"]);
        assert_eq!(executor.isolation.drop_capabilities, ["ALL"]);
    }

    #[test]
    fn flags_go_over_a_definition_and_silence_keeps_it() {
        let file = TaskSpec {
            cwd: Some("/file".to_owned()),
            terminal: true,
            deadline_ms: Some(5),
            ..TaskSpec::default()
        };
        let mut spec = file.clone();
        parse(&[]).task.apply(&mut spec).unwrap();
        assert_eq!(spec, file);
        parse(&["-w", "/flag"]).task.apply(&mut spec).unwrap();
        assert_eq!(
            (spec.cwd.as_deref(), spec.deadline_ms),
            (Some("/flag"), Some(5))
        );
    }

    #[test]
    fn nonsense_is_refused_before_anything_happens() {
        for args in [
            &["--cpus", "0"][..],
            &["--cpus", "x"],
            &["--cpus", "1."],
            &["--cpus", "0.000001"],
            &["-m", "lots"],
            &["--ulimit", "nofile"],
            &["--ulimit", "nofile=x"],
            &["--restart", "sometimes"],
            &["--restart", "always:3"],
            &["--stop-signal", "NOPE"],
            &["--timeout", "soon"],
            &["--cap-add", ""],
        ] {
            assert!(
                Line::try_parse_from(["x"].iter().chain(args)).is_err(),
                "{args:?}"
            );
        }
        assert!(parse(&["-e", "=x"]).task.spec(&[]).is_err());
        assert!(
            parse(&["--env-file", "/nonexistent"])
                .task
                .spec(&[])
                .is_err()
        );
        assert!(
            parse(&["--secret-env", "PORTLAYER_TEST_NOT_SET"])
                .task
                .spec(&[])
                .is_err()
        );
    }
}
