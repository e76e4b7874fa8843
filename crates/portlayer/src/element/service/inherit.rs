//! What a task takes from its parent task: every field it is silent about.

use crate::task::{LogChoice, RestartPolicy, StopSpec, TaskSpec};

/// Fills the fields `task` leaves out from `parent`.
///
/// Lists that add up (environment, secrets) begin with the parent's entries, so the task's own win; a resource limit
/// replaces the parent's of the same name; everything else is the task's when it says something, else the parent's.
pub(super) fn inherit(task: TaskSpec, parent: &TaskSpec) -> TaskSpec {
    let rlimits = parent
        .rlimits
        .iter()
        .filter(|old| task.rlimits.iter().all(|new| new.name != old.name))
        .chain(&task.rlimits)
        .cloned()
        .collect();
    TaskSpec {
        argv: or(task.argv, &parent.argv, Vec::is_empty),
        env: [parent.env.clone(), task.env].concat(),
        secrets: [parent.secrets.clone(), task.secrets].concat(),
        cwd: task.cwd.or_else(|| parent.cwd.clone()),
        user: task.user.or_else(|| parent.user.clone()),
        extra_gids: or(task.extra_gids, &parent.extra_gids, Vec::is_empty),
        terminal: task.terminal || parent.terminal,
        interaction: crate::task::Interaction {
            stdin: task.interaction.stdin || parent.interaction.stdin,
        },
        stdout: or(task.stdout, &parent.stdout, |log| {
            *log == LogChoice::default()
        }),
        stderr: or(task.stderr, &parent.stderr, |log| {
            *log == LogChoice::default()
        }),
        rlimits,
        deadline_ms: task.deadline_ms.or(parent.deadline_ms),
        stop: or(task.stop, &parent.stop, |stop| *stop == StopSpec::default()),
        restart: or(task.restart, &parent.restart, |restart| {
            *restart == RestartPolicy::Never
        }),
    }
}

fn or<T: Clone>(own: T, parent: &T, silent: impl FnOnce(&T) -> bool) -> T {
    if silent(&own) { parent.clone() } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Rlimit;

    #[test]
    fn silent_fields_come_from_the_parent_and_said_ones_stay() {
        let limit = |name: &str, soft| Rlimit {
            name: name.into(),
            soft,
            hard: 100,
        };
        let parent = TaskSpec {
            argv: vec!["/bin/a".into()],
            env: vec![("A".into(), "1".into()), ("B".into(), "1".into())],
            cwd: Some("/p".into()),
            user: Some("1000".into()),
            rlimits: vec![limit("nofile", 1), limit("core", 1)],
            deadline_ms: Some(5),
            ..TaskSpec::default()
        };
        let child = TaskSpec {
            env: vec![("B".into(), "2".into())],
            cwd: Some("/c".into()),
            rlimits: vec![limit("nofile", 2)],
            ..TaskSpec::default()
        };
        let made = inherit(child, &parent);
        assert_eq!(made.argv, ["/bin/a"]);
        assert_eq!(made.env.last(), Some(&("B".to_owned(), "2".to_owned())));
        assert_eq!(made.env.len(), 3);
        assert_eq!(made.cwd.as_deref(), Some("/c"));
        assert_eq!(made.user.as_deref(), Some("1000"));
        assert_eq!(made.rlimits, [limit("core", 1), limit("nofile", 2)]);
        assert_eq!(made.deadline_ms, Some(5));
        assert_eq!(made.stop, StopSpec::default());
    }
}
