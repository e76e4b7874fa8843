//! What elements say: specs of every kind.

use portlayer::element::{ImageSpec, Kind, Spec, State, VolumeSpec};
use portlayer::task::{
    ExecutorSpec, ImageDefaults, Interaction, Isolation, Limits, LogChoice, RestartPolicy, Rlimit,
    Secret, StopSpec, TaskSpec,
};
use portlayer_proto::v1;

use super::{Wire, WireError, missing, optional_id, or_default, required};

impl Wire for Kind {
    type Message = v1::Kind;

    fn into_wire(self) -> v1::Kind {
        match self {
            Kind::Image => v1::Kind::Image,
            Kind::Volume => v1::Kind::Volume,
            Kind::Task => v1::Kind::Task,
            Kind::Executor => v1::Kind::Executor,
            Kind::Network => v1::Kind::Network,
            Kind::Log => v1::Kind::Log,
        }
    }

    fn from_wire(message: v1::Kind) -> Result<Self, WireError> {
        Ok(match message {
            v1::Kind::Unspecified => return Err(missing("kind")),
            v1::Kind::Image => Kind::Image,
            v1::Kind::Volume => Kind::Volume,
            v1::Kind::Task => Kind::Task,
            v1::Kind::Executor => Kind::Executor,
            v1::Kind::Network => Kind::Network,
            v1::Kind::Log => Kind::Log,
        })
    }
}

impl Wire for State {
    type Message = v1::State;

    fn into_wire(self) -> v1::State {
        match self {
            State::Ready => v1::State::Ready,
            State::Unavailable => v1::State::Unavailable,
            State::Created => v1::State::Created,
            State::Running => v1::State::Running,
            State::Paused => v1::State::Paused,
            State::Stopped => v1::State::Stopped,
        }
    }

    fn from_wire(message: v1::State) -> Result<Self, WireError> {
        Ok(match message {
            v1::State::Unspecified => return Err(missing("state")),
            v1::State::Ready => State::Ready,
            v1::State::Unavailable => State::Unavailable,
            v1::State::Created => State::Created,
            v1::State::Running => State::Running,
            v1::State::Paused => State::Paused,
            v1::State::Stopped => State::Stopped,
        })
    }
}

impl Wire for Spec {
    type Message = v1::Spec;

    fn into_wire(self) -> v1::Spec {
        use v1::spec::Kind as K;
        v1::Spec {
            kind: Some(match self {
                Spec::Image(spec) => K::Image(spec.into_wire()),
                Spec::Volume(spec) => K::Volume(spec.into_wire()),
                Spec::Task(spec) => K::Task(spec.into_wire()),
                Spec::Executor(spec) => K::Executor(spec.into_wire()),
                Spec::Network(settings) => K::Network(v1::Settings { settings }),
                Spec::Log(settings) => K::Log(v1::Settings { settings }),
            }),
        }
    }

    fn from_wire(message: v1::Spec) -> Result<Self, WireError> {
        use v1::spec::Kind as K;
        Ok(match message.kind.ok_or_else(|| missing("kind"))? {
            K::Image(spec) => Spec::Image(required("image", Some(spec))?),
            K::Volume(spec) => Spec::Volume(required("volume", Some(spec))?),
            K::Task(spec) => Spec::Task(Box::new(required("task", Some(spec))?)),
            K::Executor(spec) => Spec::Executor(Box::new(required("executor", Some(spec))?)),
            K::Network(settings) => Spec::Network(settings.settings),
            K::Log(settings) => Spec::Log(settings.settings),
        })
    }
}

impl Wire for ImageSpec {
    type Message = v1::ImageSpec;

    fn into_wire(self) -> v1::ImageSpec {
        let ImageSpec { freespace_bytes } = self;
        v1::ImageSpec { freespace_bytes }
    }

    fn from_wire(message: v1::ImageSpec) -> Result<Self, WireError> {
        let v1::ImageSpec { freespace_bytes } = message;
        Ok(ImageSpec { freespace_bytes })
    }
}

impl Wire for VolumeSpec {
    type Message = v1::VolumeSpec;

    fn into_wire(self) -> v1::VolumeSpec {
        let VolumeSpec {
            freespace_bytes,
            size_bytes,
            uid,
            gid,
            mode,
        } = self;
        v1::VolumeSpec {
            freespace_bytes,
            size_bytes,
            uid,
            gid,
            mode,
        }
    }

    fn from_wire(message: v1::VolumeSpec) -> Result<Self, WireError> {
        let v1::VolumeSpec {
            freespace_bytes,
            size_bytes,
            uid,
            gid,
            mode,
        } = message;
        Ok(VolumeSpec {
            freespace_bytes,
            size_bytes,
            uid,
            gid,
            mode,
        })
    }
}

impl Wire for TaskSpec {
    type Message = v1::TaskSpec;

    fn into_wire(self) -> v1::TaskSpec {
        let TaskSpec {
            argv,
            env,
            secrets,
            cwd,
            user,
            extra_gids,
            terminal,
            interaction,
            stdout,
            stderr,
            rlimits,
            deadline_ms,
            stop,
            restart,
        } = self;
        let Interaction { stdin } = interaction;
        v1::TaskSpec {
            argv,
            env: variables(env),
            secrets: secrets
                .into_iter()
                .map(|Secret { name, value }| v1::Secret { name, value })
                .collect(),
            cwd,
            user,
            extra_gids,
            terminal,
            interaction: Some(v1::Interaction { stdin }),
            stdout: Some(stdout.into_wire()),
            stderr: Some(stderr.into_wire()),
            rlimits: rlimits
                .into_iter()
                .map(|Rlimit { name, soft, hard }| v1::Rlimit { name, soft, hard })
                .collect(),
            deadline_ms,
            stop: Some(stop.into_wire()),
            restart: Some(restart.into_wire()),
        }
    }

    fn from_wire(message: v1::TaskSpec) -> Result<Self, WireError> {
        Ok(TaskSpec {
            argv: message.argv,
            env: read_variables(message.env),
            secrets: message
                .secrets
                .into_iter()
                .map(|v1::Secret { name, value }| Secret { name, value })
                .collect(),
            cwd: message.cwd,
            user: message.user,
            extra_gids: message.extra_gids,
            terminal: message.terminal,
            interaction: Interaction {
                stdin: message.interaction.is_some_and(|who| who.stdin),
            },
            stdout: or_default("stdout", message.stdout)?,
            stderr: or_default("stderr", message.stderr)?,
            rlimits: message
                .rlimits
                .into_iter()
                .map(|v1::Rlimit { name, soft, hard }| Rlimit { name, soft, hard })
                .collect(),
            deadline_ms: message.deadline_ms,
            stop: or_default("stop", message.stop)?,
            restart: or_default("restart", message.restart)?,
        })
    }
}

fn variables(env: Vec<(String, String)>) -> Vec<v1::EnvironmentVariable> {
    env.into_iter()
        .map(|(name, value)| v1::EnvironmentVariable { name, value })
        .collect()
}

fn read_variables(env: Vec<v1::EnvironmentVariable>) -> Vec<(String, String)> {
    env.into_iter()
        .map(|variable| (variable.name, variable.value))
        .collect()
}

impl Wire for LogChoice {
    type Message = v1::LogChoice;

    fn into_wire(self) -> v1::LogChoice {
        let LogChoice {
            sink,
            required,
            discard,
        } = self;
        v1::LogChoice {
            sink: sink.map(|id| id.to_string()),
            required,
            discard,
        }
    }

    fn from_wire(message: v1::LogChoice) -> Result<Self, WireError> {
        Ok(LogChoice {
            sink: optional_id("sink", message.sink.as_deref())?,
            required: message.required,
            discard: message.discard,
        })
    }
}

impl Wire for StopSpec {
    type Message = v1::StopSpec;

    fn into_wire(self) -> v1::StopSpec {
        let StopSpec { signal, grace_ms } = self;
        v1::StopSpec {
            signal,
            grace_ms: Some(grace_ms),
        }
    }

    fn from_wire(message: v1::StopSpec) -> Result<Self, WireError> {
        let v1::StopSpec { signal, grace_ms } = message;
        Ok(StopSpec {
            signal,
            grace_ms: grace_ms.unwrap_or_else(|| StopSpec::default().grace_ms),
        })
    }
}

impl Wire for RestartPolicy {
    type Message = v1::RestartPolicy;

    fn into_wire(self) -> v1::RestartPolicy {
        use v1::restart_policy::{Always, Never, OnFailure, Policy};
        v1::RestartPolicy {
            policy: Some(match self {
                RestartPolicy::Never => Policy::Never(Never {}),
                RestartPolicy::OnFailure { max, backoff_ms } => {
                    Policy::OnFailure(OnFailure { max, backoff_ms })
                }
                RestartPolicy::Always { backoff_ms } => Policy::Always(Always { backoff_ms }),
            }),
        }
    }

    fn from_wire(message: v1::RestartPolicy) -> Result<Self, WireError> {
        use v1::restart_policy::{Always, OnFailure, Policy};
        Ok(match message.policy {
            None | Some(Policy::Never(_)) => RestartPolicy::Never,
            Some(Policy::OnFailure(OnFailure { max, backoff_ms })) => {
                RestartPolicy::OnFailure { max, backoff_ms }
            }
            Some(Policy::Always(Always { backoff_ms })) => RestartPolicy::Always { backoff_ms },
        })
    }
}

impl Wire for ExecutorSpec {
    type Message = v1::ExecutorSpec;

    fn into_wire(self) -> v1::ExecutorSpec {
        let ExecutorSpec {
            hostname,
            limits,
            isolation,
        } = self;
        v1::ExecutorSpec {
            hostname,
            limits: Some(limits.into_wire()),
            isolation: Some(isolation.into_wire()),
        }
    }

    fn from_wire(message: v1::ExecutorSpec) -> Result<Self, WireError> {
        Ok(ExecutorSpec {
            hostname: message.hostname,
            limits: or_default("limits", message.limits)?,
            isolation: or_default("isolation", message.isolation)?,
        })
    }
}

impl Wire for Limits {
    type Message = v1::Limits;

    fn into_wire(self) -> v1::Limits {
        let Limits {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            pids,
            disk_bytes,
            disk_inodes,
        } = self;
        v1::Limits {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            pids,
            disk_bytes,
            disk_inodes,
        }
    }

    fn from_wire(message: v1::Limits) -> Result<Self, WireError> {
        let v1::Limits {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            pids,
            disk_bytes,
            disk_inodes,
        } = message;
        Ok(Limits {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            pids,
            disk_bytes,
            disk_inodes,
        })
    }
}

impl Wire for Isolation {
    type Message = v1::Isolation;

    fn into_wire(self) -> v1::Isolation {
        let Isolation {
            privileged,
            add_capabilities,
            drop_capabilities,
            allow_new_privileges,
            host_users,
            compat_programs,
        } = self;
        v1::Isolation {
            privileged,
            add_capabilities,
            drop_capabilities,
            allow_new_privileges,
            host_users,
            compat_programs,
        }
    }

    fn from_wire(message: v1::Isolation) -> Result<Self, WireError> {
        let v1::Isolation {
            privileged,
            add_capabilities,
            drop_capabilities,
            allow_new_privileges,
            host_users,
            compat_programs,
        } = message;
        Ok(Isolation {
            privileged,
            add_capabilities,
            drop_capabilities,
            allow_new_privileges,
            host_users,
            compat_programs,
        })
    }
}

impl Wire for ImageDefaults {
    type Message = v1::ImageDefaults;

    fn into_wire(self) -> v1::ImageDefaults {
        let ImageDefaults {
            entrypoint,
            cmd,
            env,
            user,
            cwd,
            stop_signal,
            labels,
            volumes,
        } = self;
        v1::ImageDefaults {
            entrypoint,
            cmd,
            env: variables(env),
            user,
            cwd,
            stop_signal,
            labels,
            volumes,
        }
    }

    fn from_wire(message: v1::ImageDefaults) -> Result<Self, WireError> {
        Ok(ImageDefaults {
            entrypoint: message.entrypoint,
            cmd: message.cmd,
            env: read_variables(message.env),
            user: message.user,
            cwd: message.cwd,
            stop_signal: message.stop_signal,
            labels: message.labels,
            volumes: message.volumes,
        })
    }
}
