//! Clauses about a task that differs a little from the one of the case: it is run too, and its own clauses are checked.

use serde_json::{Value, json};

use super::{outside_quotes, regex};

/// A further task and what is expected of it.
pub(crate) struct Variant {
    change: Change,
    /// Clauses about the further task.
    pub(crate) expected: Vec<String>,
}

enum Change {
    /// The same once more.
    Again,
    /// One field has another value.
    Field(String, Value),
    /// Every volume has this mode.
    Mode(String),
    /// A connection goes to another port.
    Port(String),
    /// The callback goes to another path of the hook server.
    Callback(&'static str),
    /// Results are cut as the seed's document says.
    SeedPolicy,
    /// The action fails.
    Failing,
    /// What was fetched is looked at afterwards by this script, in which `@TO@` is its directory.
    Look(&'static str),
}

/// The variant a clause speaks of, if it does.
pub(crate) fn variant(clause: &str) -> Option<Variant> {
    let of = |change, expected: &[&str]| {
        let expected = expected.iter().map(|clause| (*clause).to_owned()).collect();
        Some(Variant { change, expected })
    };
    let rest = |text: &str| outside_quotes(text);
    if let Some(found) =
        regex(r"^(?:with )?(disk_mb|memory_mb|max_pids|cpu_weight) (?:of )?(-?\d+): (.*)$")
            .captures(clause)
    {
        let value = found[2].parse::<i64>().ok()?;
        return Some(Variant {
            change: Change::Field(found[1].to_owned(), json!(value)),
            expected: rest(&found[3]),
        });
    }
    if let Some(found) = regex(r"^mode `(rw?)` instead: (.*)$").captures(clause) {
        return Some(Variant {
            change: Change::Mode(found[1].to_owned()),
            expected: rest(&found[2]),
        });
    }
    if let Some(found) = regex(r"^(?:a )?second task[^:]*: (.*)$").captures(clause) {
        return Some(Variant {
            change: Change::Again,
            expected: rest(&found[1]),
        });
    }
    if let Some(found) =
        regex(r"connection .*to @PEER@ port (\d+) is (?:refused|rejected|denied)").captures(clause)
    {
        return Some(Variant {
            change: Change::Port(found[1].to_owned()),
            expected: vec!["the connection was refused".to_owned()],
        });
    }
    if regex(r"^a 4xx or 5\d\d answer resolves the task").is_match(clause) {
        return of(
            Change::Callback("/status/500"),
            &["lookup answers ResourceNotFound"],
        );
    }
    if let Some(found) = regex(r"^seed text: (.*)$").captures(clause) {
        return Some(Variant {
            change: Change::SeedPolicy,
            expected: rest(&found[1]),
        });
    }
    if regex(r"^variant where the action also fails: the action's reason is kept").is_match(clause)
    {
        return of(
            Change::Failing,
            &["failure_reason ends with `: Exited with status 7`"],
        );
    }
    if let Some(found) = regex(r"^files are owned by (\w+)$").captures(clause) {
        return Some(Variant {
            change: Change::Look("stat -c %U @TO@ @TO@/* | sort -u"),
            expected: vec![format!("result equals `{}` newline", &found[1])],
        });
    }
    if clause == "nothing is extracted in the container" {
        return of(
            Change::Look("ls -A @TO@ 2> /dev/null || true"),
            &["result empty"],
        );
    }
    None
}

impl Variant {
    /// Whether it is for a node that cuts results as the seed's document says.
    pub(crate) fn wants_seed_policy(&self) -> bool {
        matches!(self.change, Change::SeedPolicy)
    }

    /// The definition, changed; `None` when the case has not what is to be changed.
    pub(crate) fn of(&self, sent: &Value, number: usize) -> Option<Value> {
        let mut task = sent.clone();
        let guid = format!("{}-v{number}", sent["task_guid"].as_str()?);
        task["task_guid"] = json!(guid);
        task["log_guid"] = json!(guid);
        match &self.change {
            Change::Again | Change::SeedPolicy => {}
            Change::Field(field, value) => task[field] = value.clone(),
            Change::Mode(mode) => {
                for mount in task.get_mut("volume_mounts")?.as_array_mut()? {
                    mount["mode"] = json!(mode);
                }
            }
            Change::Port(port) => {
                let text = task.to_string();
                let changed = regex(r"(\d+\.\d+\.\d+\.\d+) \d+; echo")
                    .replace_all(&text, format!("$1 {port}; echo"))
                    .into_owned();
                task = serde_json::from_str(&changed).ok()?;
            }
            Change::Callback(path) => {
                let url = task["completion_callback_url"].as_str()?;
                let host = regex(r"^https?://[^/]+").find(url)?.as_str();
                task["completion_callback_url"] = json!(format!("{host}{path}"));
            }
            Change::Failing => {
                let run = task.pointer_mut("/action/run")?;
                run["path"] = json!("sh");
                run["args"] = json!(["-c", "exit 7"]);
            }
            Change::Look(script) => {
                let to = destination(&task["action"])?;
                let script = format!("{{ {}; }} > /tmp/looked", script.replace("@TO@", &to));
                let look =
                    json!({ "run": { "path": "sh", "args": ["-c", script], "user": "root" } });
                let before = json!({ "try": { "action": task["action"] } });
                task["action"] = json!({ "serial": { "actions": [before, look] } });
                task["result_file"] = json!("/tmp/looked");
            }
        }
        Some(task)
    }
}

/// Where the first download of an action puts what it fetched.
fn destination(action: &Value) -> Option<String> {
    match action {
        Value::Object(map) => match map.get("download") {
            Some(download) => Some(download["to"].as_str()?.to_owned()),
            None => map.values().find_map(destination),
        },
        Value::Array(list) => list.iter().find_map(destination),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_about_other_tasks_become_tasks() {
        let sent =
            json!({ "task_guid": "g", "disk_mb": 16, "action": { "download": { "to": "/x" } } });
        let made = |clause: &str| variant(clause).unwrap().of(&sent, 1).unwrap();
        assert_eq!(made("disk_mb 0: the 40 MiB write succeeds")["disk_mb"], 0);
        assert_eq!(
            made("second task with the same cache_key: it is fine")["task_guid"],
            "g-v1"
        );
        let looked = made("files are owned by vcap").to_string();
        assert!(looked.contains("stat -c %U /x /x/*"), "{looked}");
        assert!(variant("final: Completed").is_none());
        assert!(
            variant("mode `r` instead: it fails")
                .unwrap()
                .of(&sent, 1)
                .is_none()
        );
    }
}
