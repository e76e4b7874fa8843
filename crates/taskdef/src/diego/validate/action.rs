//! The rules of actions.

use super::super::schema::{Action, ActionKind, ActionList};
use super::{Problems, check_checksum, check_env};

/// Checks the action in a wrapper that is there.
pub(super) fn check(action: &Action, path: &str, problems: &mut Problems) {
    let kinds = action.kinds();
    let kind = match kinds.as_slice() {
        [] => {
            problems.field("inner-action", path, "names no action");
            return;
        }
        [kind] => *kind,
        // Diego would silently run the first in the order of the protocol.
        several => {
            let names: Vec<_> = several.iter().map(ActionKind::name).collect();
            problems.text(
                "more than one action kind",
                path,
                format!("has {}", names.join(" and ")),
            );
            return;
        }
    };
    let path = format!("{path}.{}", kind.name());
    let mut needed = |name: &str, value: &str| {
        if value.is_empty() {
            problems.field(name, format!("{path}.{name}"), "must not be empty");
        }
    };
    match kind {
        ActionKind::Download(download) => {
            needed("from", &download.from);
            needed("to", &download.to);
            needed("user", &download.user);
            check_checksum(
                &download.checksum_algorithm,
                &download.checksum_value,
                &path,
                problems,
            );
        }
        ActionKind::Upload(upload) => {
            needed("to", &upload.to);
            needed("from", &upload.from);
            needed("user", &upload.user);
        }
        ActionKind::Run(run) => {
            needed("path", &run.path);
            needed("user", &run.user);
            check_env(&run.env, &format!("{path}.env"), problems);
            let mut words = std::iter::once(&run.path)
                .chain(&run.args)
                .chain([&run.dir, &run.user]);
            if words.any(|word| word.contains('\0')) {
                problems.field("run", path, "NUL cannot be passed to a program");
            }
        }
        ActionKind::Timeout(timeout) => {
            inner(timeout.action.as_ref(), &path, problems);
            if timeout.timeout_ms <= 0 {
                problems.field(
                    "timeout_ms",
                    format!("{path}.timeout_ms"),
                    "must be at least 1",
                );
            }
        }
        ActionKind::EmitProgress(progress) => inner(progress.action.as_ref(), &path, problems),
        ActionKind::Try(attempt) => inner(attempt.action.as_ref(), &path, problems),
        ActionKind::Parallel(list) | ActionKind::Serial(list) | ActionKind::Codependent(list) => {
            check_list(list, &path, problems);
        }
    }
}

fn inner(action: Option<&Action>, path: &str, problems: &mut Problems) {
    match action {
        None => problems.field("action", format!("{path}.action"), "is missing"),
        Some(action) => check(action, &format!("{path}.action"), problems),
    }
}

fn check_list(list: &ActionList, path: &str, problems: &mut Problems) {
    if list.actions.is_empty() {
        problems.field(
            "actions",
            format!("{path}.actions"),
            "at least one is needed",
        );
    }
    for (at, action) in list.actions.iter().enumerate() {
        let path = format!("{path}.actions[{at}]");
        match action {
            None => problems.field(&format!("action at index {at}"), path, "is null"),
            Some(action) => check(action, &path, problems),
        }
    }
}
