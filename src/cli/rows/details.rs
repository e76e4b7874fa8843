//! An element in detail.

use portlayer::compose::Role;
use portlayer::element::{Body, Descriptor};
use serde::Serialize;

use super::bytes;

/// An element in detail, as lines of name and value.
pub(crate) fn details(element: &Descriptor) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
    let mut line = |name: &str, value: Vec<u8>| lines.push((name.to_owned(), value));
    line("id", element.id.as_str().into());
    line("state", element.state.as_str().into());
    if let Some(parent) = &element.parent {
        line("parent", parent.as_str().into());
    }
    if let Some(owner) = &element.owner {
        line("owner", owner.as_str().into());
    }
    if let Some(checksum) = element.checksum {
        line("checksum", checksum.to_string().into());
        line("size", bytes(element.size).into());
    }
    line("revision", element.revision.to_string().into());
    line("created", element.created.to_string().into());
    line("modified", element.modified.to_string().into());
    for (name, map) in [("ro", &element.ro), ("rw", &element.rw)] {
        let mut name = name;
        for (key, value) in map {
            let mut text = format!("{key}=").into_bytes();
            text.extend_from_slice(value);
            line(name, text);
            name = "";
        }
    }
    body(&element.body, &mut line);
    lines
}

fn body(body: &Body, line: &mut dyn FnMut(&str, Vec<u8>)) {
    // Only what was asked for or is known; empty fields say nothing.
    match body {
        Body::Image(image) => {
            if image.metadata_only {
                line("data", "shared with the parent".into());
            }
            fields("defaults", &image.defaults, line);
        }
        Body::Volume(volume) => fields("spec", &volume.spec, line),
        Body::Task(task) => fields("task", &task.spec, line),
        Body::Executor(executor) => {
            fields("executor", &executor.spec, line);
            let composition = &executor.composition;
            let mut name = "joined";
            for (id, joined) in &composition.joined {
                let bound = if joined.bound { "bound" } else { "joined" };
                line(name, format!("{id} {bound}{}", role(&joined.role)).into());
                name = "";
            }
            let mut name = "runs";
            for (task, run) in &composition.runs {
                line(
                    name,
                    format!("{task} run {} since {}", run.run, run.started).into(),
                );
                name = "";
            }
        }
        Body::Network(network) => fields("settings", &network.settings, line),
        Body::Log(log) => fields("settings", &log.settings, line),
    }
}

fn role(role: &Role) -> String {
    use portlayer::compose::JoinHow;
    use portlayer::store::Access;
    let mode = |access: &Access| match access {
        Access::ReadWrite => "",
        Access::ReadOnly => " read-only",
    };
    match role {
        Role::Part(JoinHow::Image { target, access }) => format!(" at {target}{}", mode(access)),
        Role::Part(JoinHow::Volume { target, access, .. }) => {
            format!(" at {target}{}", mode(access))
        }
        Role::Part(_) => String::new(),
        Role::Task { spec, .. } => format!(": {}", spec.argv.join(" ")),
    }
}

/// The fields of a value that say something, as `name.field: json`.
fn fields<T: Serialize>(name: &str, value: &T, line: &mut dyn FnMut(&str, Vec<u8>)) {
    use serde_json::Value;
    fn silent(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_u64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.values().all(silent),
            Value::Bool(true) => false,
        }
    }
    if let Ok(Value::Object(map)) = serde_json::to_value(value) {
        for (field, value) in map.into_iter().filter(|(_, value)| !silent(value)) {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            line(&format!("{name}.{field}"), text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::task;

    #[test]
    fn details_show_what_was_said_and_nothing_else() {
        let names: Vec<_> = details(&task()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "id",
                "state",
                "revision",
                "created",
                "modified",
                "ro",
                "rw",
                "task.argv",
                "task.restart",
                "task.stop"
            ]
        );
    }
}
