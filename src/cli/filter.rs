//! `--filter`: containerd's language, and docker's `key=value` put into it.

use clap::Args;

/// What to select.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct FilterArgs {
    /// containerd's syntax, e.g. 'kind==image,labels.team~=^a'; several select what any of them selects. Also
    /// label=KEY[=VALUE], name=PART, status=STATE: different ones must all hold
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

impl FilterArgs {
    /// Filters in containerd's syntax, any of which selects. `also` must hold in every one of them.
    pub(crate) fn alternatives(&self, also: &[String]) -> Vec<String> {
        // Groups that must all hold; within a group one member is enough.
        let mut groups: Vec<(String, Vec<String>)> = also
            .iter()
            .map(|condition| (String::new(), vec![condition.clone()]))
            .collect();
        for text in &self.filters {
            let (group, condition) = match sugar(text) {
                Some((key, condition)) => (key.to_owned(), condition),
                None => ("raw".to_owned(), text.clone()),
            };
            // Several labels must all hold, several names or states cannot.
            let open = groups
                .iter_mut()
                .find(|(name, _)| *name == group && group != "label");
            match open {
                Some((_, members)) => members.push(condition),
                None => groups.push((group, vec![condition])),
            }
        }
        let mut combined: Vec<String> = Vec::new();
        for (_, members) in groups {
            combined = if combined.is_empty() {
                members
            } else {
                combined
                    .iter()
                    .flat_map(|left| members.iter().map(move |right| format!("{left},{right}")))
                    .collect()
            };
        }
        combined
    }
}

/// Docker's form, when it is that: the key and the condition in containerd's syntax.
fn sugar(text: &str) -> Option<(&str, String)> {
    let (key, value) = text.split_once('=')?;
    // `==`, `!=`, `~=` and paths into maps are containerd's.
    if value.starts_with('=') || !key.chars().all(|c| c.is_ascii_lowercase()) {
        return None;
    }
    let condition = match key {
        "label" => match value.split_once('=') {
            Some((label, value)) => format!("labels.{}=={}", quoted(label), quoted(value)),
            None => format!("labels.{}", quoted(value)),
        },
        "name" => format!("name~={}", quoted(&regex_literal(value))),
        "status" => format!("state=={}", quoted(value)),
        key => format!("{key}=={}", quoted(value)),
    };
    Some((key, condition))
}

/// A condition that a field has this value.
pub(crate) fn equals(field: &str, value: &str) -> String {
    format!("{field}=={}", quoted(value))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn regex_literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alternatives(filters: &[&str], also: &[&str]) -> Vec<String> {
        let own = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        FilterArgs {
            filters: own(filters),
        }
        .alternatives(&own(also))
    }

    #[test]
    fn containerds_own_syntax_is_left_alone_and_alternatives_stay() {
        assert_eq!(alternatives(&[], &[]), [""; 0]);
        assert_eq!(
            alternatives(
                &["kind==image", "labels.\"a=b\"~=^x", "parent!=y", "parent"],
                &[]
            ),
            ["kind==image", "labels.\"a=b\"~=^x", "parent!=y", "parent"]
        );
    }

    #[test]
    fn dockers_form_is_translated() {
        assert_eq!(
            alternatives(&["label=team=a b"], &[]),
            [r#"labels."team"=="a b""#]
        );
        assert_eq!(alternatives(&["label=team"], &[]), [r#"labels."team""#]);
        assert_eq!(alternatives(&["name=a.b"], &[]), [r#"name~="a\\.b""#]);
        assert_eq!(
            alternatives(&["status=running"], &[]),
            [r#"state=="running""#]
        );
        assert_eq!(
            alternatives(&["parent=image://images/a"], &[]),
            [r#"parent=="image://images/a""#]
        );
        assert_eq!(
            alternatives(&[r#"label=x="\"#], &[]),
            [r#"labels."x"=="\"\\""#]
        );
    }

    #[test]
    fn different_keys_must_all_hold_and_the_same_may() {
        assert_eq!(
            alternatives(
                &["status=running", "status=paused", "label=a=1"],
                &["kind==executor"]
            ),
            [
                r#"kind==executor,state=="running",labels."a"=="1""#,
                r#"kind==executor,state=="paused",labels."a"=="1""#,
            ]
        );
        assert_eq!(
            alternatives(&["label=a", "label=b"], &[]),
            [r#"labels."a",labels."b""#]
        );
        assert_eq!(
            alternatives(&["a==1", "b==2", "name=x"], &[]),
            [r#"a==1,name~="x""#, r#"b==2,name~="x""#]
        );
    }
}
