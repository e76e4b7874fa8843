//! Where the output of a task goes: the logs its streams name, or those the executor has.

use super::validate::Task;
use super::{CommitError, JoinHow, Role};
use crate::element::{Body, ElementId, builtin};
use crate::log::{LogKind, LogSpec};
use crate::runtime::SinkPlan;
use crate::task::{LogChoice, Secret};

/// The logs of both streams, and what is replaced in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outputs {
    /// Each log once.
    pub(crate) sinks: Vec<SinkPlan>,
    /// Values to replace.
    pub(crate) redact: Vec<Secret>,
}

impl Task<'_> {
    /// A stream: its choice, discarded when all it goes to is nowhere. A stream that names no log goes to every bound one
    /// but those that are handed over, which are only for who names them.
    pub(super) fn stream(
        &self,
        field: &str,
        choice: &LogChoice,
        outputs: &mut Outputs,
    ) -> Result<LogChoice, CommitError> {
        let mut choice = choice.clone();
        if choice.discard {
            return Ok(choice);
        }
        let logs = match &choice.sink {
            Some(sink) => vec![(sink.clone(), self.named(field, sink)?)],
            None => self.bound_logs()?,
        };
        choice.discard =
            !logs.is_empty() && logs.iter().all(|(_, spec)| spec.kind == LogKind::Null);
        for (log, spec) in logs {
            if spec.kind == LogKind::Null {
                continue;
            }
            if spec.redact && outputs.redact.is_empty() {
                let said = self
                    .spec
                    .secrets
                    .iter()
                    .filter(|secret| !secret.value.is_empty());
                outputs.redact = said.cloned().collect();
            }
            let known = outputs.sinks.iter().position(|sink| sink.log == log);
            let at = known.unwrap_or_else(|| {
                let (stdout, stderr, required) = (false, false, false);
                outputs.sinks.push(SinkPlan {
                    log,
                    spec,
                    stdout,
                    stderr,
                    required,
                });
                outputs.sinks.len() - 1
            });
            let sink = &mut outputs.sinks[at];
            match field {
                "stdout" => sink.stdout = true,
                _ => sink.stderr = true,
            }
            sink.required |= choice.required;
        }
        Ok(choice)
    }

    fn named(&self, field: &str, sink: &ElementId) -> Result<LogSpec, CommitError> {
        match self.wanted.joined.contains_key(sink) {
            true => self.log_spec(sink),
            false => Err(self
                .facts
                .unresolved(self.id, format!("{sink} to be joined ({field}.sink)"))),
        }
    }

    fn bound_logs(&self) -> Result<Vec<(ElementId, LogSpec)>, CommitError> {
        let mut logs = Vec::new();
        for (id, joined) in &self.wanted.joined {
            if matches!(joined.role, Role::Part(JoinHow::Log)) && joined.bound {
                let spec = self.log_spec(id)?;
                if !matches!(spec.kind, LogKind::Path(_)) {
                    logs.push((id.clone(), spec));
                }
            }
        }
        Ok(logs)
    }

    fn log_spec(&self, id: &ElementId) -> Result<LogSpec, CommitError> {
        if id.as_str() == builtin::FILE_LOG {
            return Ok(LogSpec::new(LogKind::File(None)));
        }
        let read = match &self.facts.record(id)?.body {
            Body::Log(body) => LogSpec::of_settings(&body.settings).ok(),
            _ => None,
        };
        read.ok_or_else(|| self.facts.unresolved(id, "to be stored as a log"))
    }
}
