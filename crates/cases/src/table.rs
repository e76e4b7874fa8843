//! A table of definitions with the answers of Diego's own validator.

use anyhow::{Context, Result};
use portlayer_taskdef::diego::{Rules, from_json, validate};
use serde_json::Value;

use crate::Verdict;

/// Checks every row in strict mode, which is Diego's.
pub(crate) fn check(name: &str, table: &Value) -> Result<Verdict> {
    let rows = table.as_array().context("a table is a list")?;
    let mut verdict = Verdict {
        name: name.to_owned(),
        checked: 0,
        failures: Vec::new(),
        unread: Vec::new(),
        disputed: Vec::new(),
        details: Vec::new(),
    };
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let (case, diego, ours) = (text("name"), text("diego"), text("ours"));
        let answer = answer(row)?;
        let good = match ours {
            "same" => (diego, answer == diego),
            ours if ours.starts_with("Invalid field") => (ours, answer == ours),
            ours if ours.starts_with("accept") => ("OK", answer == "OK"),
            ours if ours.starts_with("reject") => ("a refusal", answer != "OK"),
            // Left to us.
            ours if ours.starts_with("may ") => (ours, true),
            other => {
                verdict.unread.push(format!("{case}: {other}"));
                continue;
            }
        };
        verdict.checked += 1;
        if !good.1 {
            verdict.failures.push(format!(
                "{case}: answered {answer:?}, expected {:?}",
                good.0
            ));
        }
    }
    Ok(verdict)
}

fn answer(row: &Value) -> Result<String> {
    let mut task = row["task"].clone();
    expand(&mut task);
    Ok(match from_json(&serde_json::to_vec(&task)?) {
        Err(error) => error.to_string(),
        Ok(parsed) => match validate(&parsed.desired, &Rules { strict: true }) {
            Ok(()) => "OK".to_owned(),
            Err(invalid) => invalid.to_string(),
        },
    })
}

/// `{"@repeat": [text, count]}` stands for the text so many times.
fn expand(value: &mut Value) {
    if let Some(repeat) = value.get("@repeat") {
        let text = repeat[0].as_str().unwrap_or_default();
        let count = repeat[1]
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0);
        *value = Value::String(text.repeat(count));
        return;
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(expand),
        Value::Array(list) => list.iter_mut().for_each(expand),
        _ => {}
    }
}
