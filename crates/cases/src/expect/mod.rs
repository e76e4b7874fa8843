//! Reads the prose of an expectation: each bullet is a list of clauses, each clause one of the phrases below. What is
//! none of them is not read, and said so; nothing is taken for checked that was not.

mod phrases;
mod variant;

use regex::Regex;

use crate::observed::Observed;

pub(crate) use variant::{Variant, variant};

/// What a clause says of what was seen.
pub(crate) enum Answer {
    Yes,
    No(String),
    NotRead,
}

/// The clauses below `Expected:`, without remarks in brackets at their end.
pub(crate) fn clauses(text: &str) -> Vec<String> {
    let mut clauses = Vec::new();
    let expected = text.split("\nExpected:").nth(1).unwrap_or_default();
    let expected = expected.split("\nNotes:").next().unwrap_or_default();
    for line in expected.lines() {
        let Some(bullet) = line.strip_prefix("- ") else {
            continue;
        };
        for part in split(bullet) {
            clauses.push(part);
        }
    }
    clauses
}

/// Splits at `; `, and after a state or a reason at `, `, but never inside back quotes or remarks in brackets.
fn split(bullet: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut remarks) = (false, 0usize);
    for c in bullet.chars() {
        if c == '`' {
            quoted = !quoted;
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        match c {
            '(' if !quoted => remarks += 1,
            ')' if !quoted => remarks = remarks.saturating_sub(1),
            _ => {}
        }
        if !quoted && remarks == 0 && c == ';' {
            if let Some(part) = parts.last_mut() {
                part.pop();
            }
            parts.push(String::new());
        }
    }
    let state = regex(r"^(final|final state|at once|ours)\b.*: ");
    let mut clauses = Vec::new();
    for part in parts {
        let part = part.trim().trim_end_matches('.').to_owned();
        let lists = state.is_match(&part) || part.starts_with("failure_reason equals");
        match lists {
            true => clauses.extend(outside_quotes(&part)),
            false => clauses.push(part),
        }
    }
    clauses.retain(|clause| !clause.is_empty());
    clauses
}

fn outside_quotes(part: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut remarks) = (false, 0usize);
    for c in part.chars() {
        match c {
            '`' => quoted = !quoted,
            '(' if !quoted => remarks += 1,
            ')' if !quoted => remarks = remarks.saturating_sub(1),
            ',' if !quoted && remarks == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .collect()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern that every run compiles")
}

/// When the task is to be cancelled, where the case says so.
pub(crate) enum Cancel {
    /// As soon as it was desired.
    AtOnce,
    /// After this line.
    After(String),
}

/// When the task is to be cancelled.
pub(crate) fn cancel(clauses: &[String]) -> Option<Cancel> {
    let after = regex(r"waits for `([^`]+)`,? (?:then|and) cancels");
    let at_once = regex(
        r"(?i)\bcancel(?:s|led|ling)? (?:it )?(?:right after|at once after|immediately|directly|while (?:it is )?(?:still )?pending|before it)",
    );
    clauses
        .iter()
        .find_map(|clause| match after.captures(clause) {
            Some(found) => Some(Cancel::After(found[1].to_owned())),
            None => at_once.is_match(clause).then_some(Cancel::AtOnce),
        })
}

/// Checks one clause.
pub(crate) fn check(clause: &str, seen: &Observed) -> Answer {
    for (pattern, check) in phrases::PHRASES.iter() {
        if let Some(found) = pattern.captures(clause) {
            return check(&found, seen);
        }
    }
    Answer::NotRead
}

/// A case may name the size of a body that it also spells out. Where both cannot be true the spelled-out body counts: the
/// clause with the right size, and what the case says.
pub(crate) fn undisputed(clause: &str, clauses: &[String]) -> Option<(String, String)> {
    let body = regex(r"with body (.*)$");
    let bytes = clauses.iter().find_map(|clause| {
        let found = body.captures(clause)?;
        Some(literal(&found[1])?.len())
    })?;
    let size = regex(r"(`Uploaded [^`]*\()(\d+)B\)`");
    let found = size.captures(clause)?;
    if found[2].parse() == Ok(bytes) {
        return None;
    }
    let told = format!(
        "the case says {}B of a body that it spells out and that has {bytes} bytes",
        &found[2]
    );
    let right = size.replace(clause, format!("${{1}}{bytes}B)`"));
    Some((right.into_owned(), told))
}

/// A text in prose: `text` + newline, or `a` newline `b` newline.
fn literal(prose: &str) -> Option<String> {
    let prose = prose.split(": ").next().unwrap_or(prose).replace('+', " ");
    let mut text = String::new();
    let mut rest = prose.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('`') {
            let (inner, after) = quoted.split_once('`')?;
            text.push_str(inner);
            rest = after.trim_start();
        } else if let Some(after) = rest.strip_prefix("newline") {
            text.push('\n');
            rest = after.trim_start();
        } else {
            return None;
        }
    }
    Some(text)
}

/// A text in which N stands for a number and SIZE for a size.
fn pattern(text: &str) -> Regex {
    let escaped = regex::escape(text);
    let escaped = regex(r"\bN\b").replace_all(&escaped, r"\d+");
    let escaped = escaped.replace("SIZE", r"[0-9.]+[BKMGT]");
    regex(&format!("^{escaped}$"))
}

/// A list in prose: `a, b and c`.
fn each(list: &str, there: impl Fn(&str) -> bool, seen: &str) -> Answer {
    let list = list.replace(" and ", ", ");
    let missing: Vec<_> = list
        .split(", ")
        .map(str::trim)
        .filter(|item| !item.is_empty() && !there(item))
        .collect();
    match missing.is_empty() {
        true => Answer::Yes,
        false => Answer::No(format!("missing {missing:?} in {seen:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bullets_become_clauses() {
        let text = "# x\n\nExpected:\n- final: Completed, failed=true, failure_reason equals `a, b`\n- log contains `x; y`; z\n\nNotes:\n- no\n";
        assert_eq!(
            clauses(text),
            [
                "final: Completed",
                "failed=true",
                "failure_reason equals `a, b`",
                "log contains `x; y`",
                "z"
            ]
        );
    }

    #[test]
    fn a_spelled_out_body_has_the_size_it_has() {
        let clauses = [
            "the server receives one POST /x with body `tasty thingy` + newline".to_owned(),
            "log contains `Uploaded thing (14B)`".to_owned(),
            "log contains `Uploaded thing (13B)`".to_owned(),
        ];
        let (right, told) = undisputed(&clauses[1], &clauses).unwrap();
        assert_eq!(right, clauses[2]);
        assert!(told.contains("14B"), "{told}");
        assert!(undisputed(&clauses[2], &clauses).is_none());
        assert!(undisputed(&clauses[1], &clauses[1..]).is_none());
    }

    #[test]
    fn when_to_cancel() {
        let clause = |text: &str| [text.to_owned()];
        assert!(matches!(
            cancel(&clause("harness waits for `started`, then cancels")),
            Some(Cancel::After(line)) if line == "started"
        ));
        assert!(matches!(
            cancel(&clause("harness cancels right after desire")),
            Some(Cancel::AtOnce)
        ));
        assert!(cancel(&clause("final: Completed")).is_none());
    }

    #[test]
    fn texts_in_prose() {
        assert_eq!(
            literal("`some output` + newline").as_deref(),
            Some("some output\n")
        );
        assert_eq!(
            literal("`1234` newline `5678` newline: numeric forms work").as_deref(),
            Some("1234\n5678\n")
        );
        assert_eq!(literal("the JSON"), None);
        assert!(
            pattern("Exit status N (out of memory)").is_match("Exit status 137 (out of memory)")
        );
        assert!(!pattern("Exit status N").is_match("Exit status 1 "));
    }
}
