//! Diego's JSON, flat as its own tools send it or nested (`{"task_guid", "domain", "task_definition": {...}}`).

use serde_json::Value;
use thiserror::Error;

use super::schema::{DesiredTask, TaskDefinition};

/// The largest definition accepted, in bytes: as large as the data of a task element may be.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Why a text is no definition.
#[derive(Debug, Error)]
pub enum ParseError {
    /// Larger than [`MAX_BYTES`].
    #[error("the definition has {bytes} bytes, more than {MAX_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON.
    #[error("the definition is not JSON")]
    Json(#[source] serde_json::Error),
    /// A value of a wrong type; `path` says where.
    #[error("{path}: {rule}")]
    Type {
        /// Path of the value.
        path: String,
        /// What was expected.
        rule: String,
    },
    /// Not a protobuf message of this type.
    #[error("the definition is not a protobuf message")]
    Protobuf(#[from] prost::DecodeError),
    /// An enumeration of the protobuf form has a number nobody knows.
    #[error("{path}: {number} is no value of it")]
    Number {
        /// Path of the field.
        path: String,
        /// The number.
        number: i32,
    },
}

/// A definition as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What is desired; not validated yet.
    pub desired: DesiredTask,
    /// Paths of fields that no part of Diego knows. Diego ignores them silently; strict mode refuses them.
    pub unknown: Vec<String>,
}

/// Reads JSON. As in Diego's own decoder a `null` is the same as an absent field, except in a list of actions, and of
/// a key that is there twice the last counts.
///
/// # Errors
/// [`ParseError`], with the path of a value of a wrong type.
pub fn from_json(text: &[u8]) -> Result<Parsed, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge { bytes: text.len() });
    }
    let mut value: Value = serde_json::from_slice(text).map_err(ParseError::Json)?;
    drop_nulls(&mut value);
    let mut unknown = Vec::new();
    let nested = value
        .as_object_mut()
        .and_then(|map| map.remove("task_definition"));
    let Some(nested) = nested else {
        return Ok(Parsed {
            desired: flat(value, &mut unknown)?,
            unknown,
        });
    };
    let mut desired = names(&value)?;
    let definition: TaskDefinition = typed(nested, "task_definition", &mut unknown)?;
    desired.definition = Some(Box::new(definition));
    if let Value::Object(map) = value {
        let further = map.into_iter().map(|(key, _)| key);
        unknown.extend(further.filter(|key| key != "task_guid" && key != "domain"));
    }
    Ok(Parsed { desired, unknown })
}

fn flat(value: Value, unknown: &mut Vec<String>) -> Result<DesiredTask, ParseError> {
    let mut desired = names(&value)?;
    let Value::Object(mut map) = value else {
        return Err(ParseError::Type {
            path: ".".to_owned(),
            rule: "expected an object".to_owned(),
        });
    };
    map.remove("task_guid");
    map.remove("domain");
    let definition = typed(Value::Object(map), "", unknown)?;
    desired.definition = Some(Box::new(definition));
    Ok(desired)
}

fn names(value: &Value) -> Result<DesiredTask, ParseError> {
    let text = |key: &str| match value.get(key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(ParseError::Type {
            path: key.to_owned(),
            rule: "expected a string".to_owned(),
        }),
    };
    Ok(DesiredTask {
        task_guid: text("task_guid")?,
        domain: text("domain")?,
        definition: None,
    })
}

fn typed(
    value: Value,
    below: &str,
    unknown: &mut Vec<String>,
) -> Result<TaskDefinition, ParseError> {
    let full = |path: String| match (below, path.as_str()) {
        ("", _) => path,
        (_, ".") => below.to_owned(),
        _ => format!("{below}.{path}"),
    };
    let mut found = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| found.push(path.to_string());
    let ignored = serde_ignored::Deserializer::new(value, &mut note);
    let read: Result<TaskDefinition, _> = serde_path_to_error::deserialize(ignored);
    let definition = read.map_err(|error| ParseError::Type {
        path: full(error.path().to_string()),
        rule: error.inner().to_string(),
    })?;
    // serde_ignored writes an optional value on the way as `?`.
    let plain = |path: String| {
        path.split('.')
            .filter(|part| *part != "?")
            .collect::<Vec<_>>()
            .join(".")
    };
    unknown.extend(found.into_iter().map(plain).map(full));
    Ok(definition)
}

/// Removes `null` entries of objects, not those of lists.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Parsed, ParseError> {
        from_json(text.as_bytes())
    }

    #[test]
    fn flat_and_nested_are_the_same() {
        let flat = json(r#"{"task_guid":"g","domain":"d","rootfs":"a:b","memory_mb":5}"#).unwrap();
        let nested = json(
            r#"{"task_guid":"g","domain":"d","task_definition":{"rootfs":"a:b","memory_mb":5}}"#,
        )
        .unwrap();
        assert_eq!(flat, nested);
        assert_eq!(flat.desired.definition.unwrap().memory_mb, 5);
    }

    #[test]
    fn null_is_absent_but_not_in_a_list_of_actions() {
        let parsed =
            json(r#"{"env":null,"action":{"parallel":{"actions":[null,{"run":{"path":null}}]}}}"#)
                .unwrap();
        let definition = parsed.desired.definition.unwrap();
        let actions = definition.action.unwrap().parallel.unwrap().actions;
        assert_eq!(actions.len(), 2);
        assert!(actions[0].is_none());
        assert_eq!(actions[1].as_ref().unwrap().run.as_ref().unwrap().path, "");
    }

    #[test]
    fn unknown_fields_and_wrong_types_have_paths() {
        let parsed =
            json(r#"{"rootfs":"a:b","bogus":1,"action":{"run":{"path":"x","colour":2}}}"#).unwrap();
        assert_eq!(parsed.unknown, ["action.run.colour", "bogus"]);
        let error = json(r#"{"action":{"run":{"args":["a",1]}}}"#).unwrap_err();
        let ParseError::Type { path, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(path, "action.run.args[1]");
        assert!(matches!(
            json(r#"{"cpu_weight":-1}"#),
            Err(ParseError::Type { .. })
        ));
        assert!(matches!(
            json(r#"{"image_layers":[{"layer_type":"X"}]}"#),
            Err(ParseError::Type { .. })
        ));
        assert!(matches!(json("[]"), Err(ParseError::Type { .. })));
        assert!(matches!(json("{"), Err(ParseError::Json(_))));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = format!(
            "{}1{}",
            r#"{"action":{"try":"#.repeat(50_000),
            "}}".repeat(50_000)
        );
        assert!(matches!(
            json(&deep),
            Err(ParseError::Json(_) | ParseError::TooLarge { .. })
        ));
    }
}
