//! Environment of a task: `-e` and `--env-file`.

/// `NAME=VALUE`, or `NAME` alone for the value it has here; `None` when it has none here, as docker does.
pub(crate) fn env_entry(
    text: &str,
    inherit: impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, inherit(text)),
    };
    if name.is_empty() {
        return Err(format!("environment {text:?} has no name"));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!(
            "environment name {name:?} holds a space or control character"
        ));
    }
    if value.as_ref().is_some_and(|value| value.contains('\0')) {
        return Err(format!("the value of environment {name:?} holds a NUL"));
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// A file of such entries, one per line; empty lines and lines that begin with `#` are skipped, nothing is quoted.
pub(crate) fn env_file(
    text: &str,
    inherit: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, String> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry =
            env_entry(line, &inherit).map_err(|error| format!("line {}: {error}", at + 1))?;
        entries.extend(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(name: &str) -> Option<String> {
        (name == "HERE").then(|| "value".to_owned())
    }

    #[test]
    fn entries() {
        let pair = |name: &str, value: &str| Ok(Some((name.to_owned(), value.to_owned())));
        assert_eq!(env_entry("A=b=c", here), pair("A", "b=c"));
        assert_eq!(env_entry("A=", here), pair("A", ""));
        assert_eq!(env_entry("HERE", here), pair("HERE", "value"));
        assert_eq!(env_entry("GONE", here), Ok(None));
        for text in ["", "=x", "A B=c", "A\n=c", "A=\0"] {
            assert!(env_entry(text, here).is_err(), "{text:?}");
        }
    }

    #[test]
    fn files() {
        let entries = env_file("# comment\n\nA=1\n  B=two words \nHERE\nGONE\n", here).unwrap();
        let names: Vec<_> = entries.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(names, ["A=1", "B=two words ", "HERE=value"]);
        assert_eq!(
            env_file("A=1\n=2", here).unwrap_err(),
            "line 2: environment \"=2\" has no name"
        );
    }
}
