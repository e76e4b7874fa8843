//! Reads the prose of an expectation: each bullet is a list of clauses, each clause one of the phrases below. What is
//! none of them is not read, and said so; nothing is taken for checked that was not.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::fixtures::BUILDER_METADATA;
use crate::observed::Observed;

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

/// Splits at `; `, and after a state or a reason at `, `, but never inside back quotes.
fn split(bullet: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in bullet.chars() {
        if c == '`' {
            quoted = !quoted;
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        if !quoted && c == ';' {
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
    let mut quoted = false;
    for c in part.chars() {
        match c {
            '`' => quoted = !quoted,
            ',' if !quoted => {
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

/// The line after which the task is to be cancelled, when the case says so.
pub(crate) fn cancel_after(clauses: &[String]) -> Option<String> {
    let pattern = regex(r"waits for `([^`]+)`, then cancels");
    clauses
        .iter()
        .find_map(|clause| Some(pattern.captures(clause)?[1].to_owned()))
}

type Check = fn(&Captures<'_>, &Observed) -> Answer;

/// Phrases and what they mean; the first that fits counts.
static PHRASES: LazyLock<Vec<(Regex, Check)>> = LazyLock::new(|| {
    let phrases: Vec<(&str, Check)> = vec![
        (r"^desire: accepted", |_, seen| {
            hold(seen.refused.is_none(), || {
                format!("refused: {:?}", seen.refused)
            })
        }),
        (r"^desire: REJECTED .*exactly `([^`]+)`", |found, seen| {
            hold(
                seen.refused_in_strict_mode.as_deref() == Some(&found[1]),
                || format!("strict mode says {:?}", seen.refused_in_strict_mode),
            )
        }),
        (r"^ours: rejected at desire", |_, seen| {
            let early = seen.refused.is_some()
                || seen.completed.as_ref().is_some_and(|task| {
                    task.failed
                        && !seen
                            .log
                            .iter()
                            .any(|line| line.text.starts_with("Exit status"))
                });
            hold(early, || "it ran".to_owned())
        }),
        (
            r"^nothing is written outside the per-task directory",
            |_, seen| hold(seen.refused.is_some(), || "it was not refused".to_owned()),
        ),
        (r"harness waits for", |_, seen| {
            hold(seen.completed.is_some(), || {
                "it did not complete".to_owned()
            })
        }),
        (
            r"^(final|final state|at once)\b[^:]*: Completed$",
            |found, seen| within(found, seen),
        ),
        (r"^(failed=(true|false))", |found, seen| {
            let wanted = &found[2] == "true";
            task(seen, |task| {
                hold(task.failed == wanted, || {
                    format!("failed={}, {:?}", task.failed, task.failure_reason)
                })
            })
        }),
        (
            r"^(final|final state|at once)\b[^:]*: failed=(true|false)",
            |found, seen| {
                let wanted = &found[2] == "true";
                task(seen, |task| {
                    hold(task.failed == wanted, || {
                        format!("failed={}, {:?}", task.failed, task.failure_reason)
                    })
                })
            },
        ),
        (r"^failure_reason empty", |_, seen| {
            task(seen, |task| {
                hold(task.failure_reason.is_empty(), || {
                    task.failure_reason.clone()
                })
            })
        }),
        (
            r"^failure_reason (equals|contains|starts with|ends with|is) `([^`]+)`",
            reason,
        ),
        (r"^full form is `([^`]+)`", |found, seen| {
            task(seen, |task| {
                hold(pattern(&found[1]).is_match(&task.failure_reason), || {
                    task.failure_reason.clone()
                })
            })
        }),
        (r"^failure_reason names the missing path", |_, seen| {
            let path = seen
                .sent
                .pointer("/action/run/path")
                .and_then(|path| path.as_str())
                .unwrap_or("\0");
            task(seen, |task| {
                hold(task.failure_reason.contains(path), || {
                    task.failure_reason.clone()
                })
            })
        }),
        (r"^result empty", |_, seen| result(seen, "")),
        (
            r"^result equals the JSON the fixture builder writes",
            |_, seen| result(seen, BUILDER_METADATA),
        ),
        (r"^result equals (.*)$", |found, seen| {
            match literal(&found[1]) {
                Some(text) => result(seen, &text),
                None => Answer::NotRead,
            }
        }),
        (
            r"^result (also )?contains the lines (.*)$",
            |found, seen| {
                task(seen, |task| {
                    each(
                        &found[2],
                        |line| task.result.lines().any(|there| there == line),
                        &task.result,
                    )
                })
            },
        ),
        (r"^result does not contain `?([^`]+)`?$", |found, seen| {
            task(seen, |task| {
                hold(!task.result.contains(&found[1]), || task.result.clone())
            })
        }),
        (r"^result (also )?contains `([^`]+)`", |found, seen| {
            task(seen, |task| {
                hold(task.result.contains(&found[2]), || task.result.clone())
            })
        }),
        (r"^result also contains ([^(]*)", |found, seen| {
            task(seen, |task| {
                each(
                    &found[1],
                    |line| task.result.lines().any(|there| there == line),
                    &task.result,
                )
            })
        }),
        (r"^Diego today: all (\d+) bytes", |found, seen| {
            task(seen, |task| {
                hold(task.result.len().to_string() == found[1], || {
                    format!("{} bytes", task.result.len())
                })
            })
        }),
        (
            r"^the uid_map line does not map container 0 to host 0",
            |_, seen| {
                let identity = regex(r"(?m)^\s*0\s+0\s+\d+\s*$");
                task(seen, |task| {
                    hold(!identity.is_match(&task.result), || task.result.clone())
                })
            },
        ),
        (r"^annotation is returned unchanged", |_, seen| {
            let sent = seen.sent["annotation"].as_str().unwrap_or_default();
            task(seen, |task| {
                hold(task.definition.annotation == sent, || {
                    task.definition.annotation.clone()
                })
            })
        }),
        (
            r"^(?:stream of states seen by a subscriber|events): (.*)$",
            changes,
        ),
        (r"^a Running state is observable", |_, seen| {
            hold(
                seen.changes
                    .iter()
                    .any(|change| change.ends_with("to Running)")),
                || seen.changes.join(", "),
            )
        }),
        (r"^log contains (.*)$", |found, seen| log(&found[1], seen)),
        (r"^log does not contain `?([^`]+)`?$", |found, seen| {
            hold(
                !seen.log.iter().any(|line| line.text.contains(&found[1])),
                || "it does".to_owned(),
            )
        }),
        (r"\(log `([^`]+)`\)", |found, seen| {
            hold(
                seen.log.iter().any(|line| line.text.contains(&found[1])),
                || "the line is missing".to_owned(),
            )
        }),
        (
            r"^(after resolving \+ delete: )?(afterwards )?lookup (by guid )?answers ResourceNotFound",
            |_, seen| {
                hold(
                    seen.gone && seen.changes.last().is_some_and(|last| last == "removed"),
                    || seen.changes.join(", "),
                )
            },
        ),
        (r"^cancelling again: .*text `([^`]+)`", |found, seen| {
            hold(seen.cancelled_again.as_deref() == Some(&found[1]), || {
                format!("{:?}", seen.cancelled_again)
            })
        }),
        (r"^no process of the task is left", |_, seen| {
            hold(seen.left.is_empty(), || seen.left.join(", "))
        }),
        (r"^exactly one GET reaches the server", |_, seen| {
            hold(seen.gets.len() == 1, || {
                format!("{} requests", seen.gets.len())
            })
        }),
        (
            r"^the server receives one POST (\S+) with body (.*)$",
            |found, seen| match literal(&found[2]) {
                Some(body) => {
                    let posts: Vec<_> = seen
                        .posts
                        .iter()
                        .filter(|post| post.path == found[1])
                        .collect();
                    hold(posts.len() == 1 && posts[0].body == body.as_bytes(), || {
                        format!("{:?}", seen.posts)
                    })
                }
                None => Answer::NotRead,
            },
        ),
        (
            r"^headers: Content-Type application/octet-stream, exact Content-Length, Content-MD5",
            headers,
        ),
        (r"^(\d+) uploads arrive", |found, seen| {
            let uploads = seen
                .posts
                .iter()
                .filter(|post| {
                    post.headers
                        .get("content-type")
                        .is_some_and(|kind| kind == "application/octet-stream")
                })
                .count();
            hold(uploads.to_string() == found[1], || format!("{uploads}"))
        }),
        (
            r"^log has the start and success progress messages with source (\w+)",
            |found, seen| {
                let said = |text: &str| {
                    seen.log
                        .iter()
                        .any(|line| line.text == text && *line.source == found[1])
                };
                hold(
                    said("Uploading droplet, build artifacts cache...")
                        && said("Uploading complete"),
                    || "a message is missing".to_owned(),
                )
            },
        ),
        (
            r"^(?:callback: )?one POST (with the callback JSON|/\S+), (?:then the task is gone|Content-Type application/json)",
            |_, seen| {
                let calls = callbacks(seen).len();
                hold(calls == 1 && seen.gone, || {
                    format!("{calls} calls, gone: {}", seen.gone)
                })
            },
        ),
        (r"^body keys: ([^-]*)", |found, seen| {
            let wanted: std::collections::BTreeSet<_> = regex(r"[a-z_]+(\([^)]*\))?")
                .find_iter(&found[1])
                .filter_map(|key| key.as_str().split('(').next())
                .map(str::to_owned)
                .collect();
            let keys: std::collections::BTreeSet<_> = callbacks(seen)
                .iter()
                .filter_map(|body| body.as_object())
                .flat_map(|body| body.keys().cloned())
                .collect();
            hold(keys == wanted, || format!("{keys:?}"))
        }),
        (
            r"^the file is in the volume element after the task is gone",
            |_, seen| {
                let made = |name: &String| name.ends_with("/made-by-task");
                hold(seen.volume_files.iter().any(made), || {
                    seen.volume_files.join(", ")
                })
            },
        ),
    ];
    phrases
        .into_iter()
        .map(|(pattern, check)| (regex(pattern), check))
        .collect()
});

/// Checks one clause.
pub(crate) fn check(clause: &str, seen: &Observed) -> Answer {
    for (pattern, check) in PHRASES.iter() {
        if let Some(found) = pattern.captures(clause) {
            return check(&found, seen);
        }
    }
    Answer::NotRead
}

fn hold(good: bool, why: impl FnOnce() -> String) -> Answer {
    if good { Answer::Yes } else { Answer::No(why()) }
}

fn task(seen: &Observed, check: impl FnOnce(&portlayer_taskdef::diego::Task) -> Answer) -> Answer {
    match &seen.completed {
        Some(task) => check(task),
        None => Answer::No(format!("it did not complete; refused: {:?}", seen.refused)),
    }
}

fn within(found: &Captures<'_>, seen: &Observed) -> Answer {
    let limit = regex(r"within (\d+) s")
        .captures(&found[0])
        .and_then(|found| found[1].parse::<u64>().ok());
    let late = limit.is_some_and(|limit| seen.seconds > limit);
    hold(seen.completed.is_some() && !late, || {
        format!("{} s, refused: {:?}", seen.seconds, seen.refused)
    })
}

fn reason(found: &Captures<'_>, seen: &Observed) -> Answer {
    let wanted = &found[2];
    task(seen, |task| {
        let reason = &task.failure_reason;
        let good = match &found[1] {
            "contains" => reason.contains(wanted),
            "starts with" => reason.starts_with(wanted),
            "ends with" => reason.ends_with(wanted),
            _ => reason == wanted,
        };
        hold(good, || format!("it is {reason:?}"))
    })
}

fn result(seen: &Observed, wanted: &str) -> Answer {
    task(seen, |task| {
        hold(task.result == wanted, || format!("it is {:?}", task.result))
    })
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
    hold(missing.is_empty(), || {
        format!("missing {missing:?} in {seen:?}")
    })
}

fn changes(found: &Captures<'_>, seen: &Observed) -> Answer {
    let wanted: Vec<_> = found[1].split(", ").map(str::trim).collect();
    let mut left = seen.changes.iter();
    // In this order; a bare state stands for the change to it.
    let missing = wanted.iter().find(|wanted| {
        let state = format!("to {wanted})");
        !left.any(|change| change == **wanted || change.ends_with(&state))
    });
    hold(missing.is_none(), || seen.changes.join(", "))
}

/// `a` and `b (SIZE)` with source s; the line `x`; a line starting `x`; bare words.
fn log(prose: &str, seen: &Observed) -> Answer {
    let source = regex(r" with source (\S+)$");
    let wanted_source = source.captures(prose).map(|found| found[1].to_owned());
    let prose = source.replace(prose, "");
    let quoted = regex(r"(the line |a line starting |a line starting with )?`([^`]+)`|([^\s`,]+)");
    let mut missing = Vec::new();
    for item in quoted.captures_iter(&prose) {
        let kind = item.get(1).map_or("", |kind| kind.as_str());
        let text = match (item.get(2), item.get(3)) {
            (Some(text), _) => text.as_str(),
            (None, Some(word)) if matches!(word.as_str(), "and" | "the" | "line" | "lines") => {
                continue;
            }
            (None, Some(word)) => word.as_str(),
            (None, None) => continue,
        };
        let exact = pattern(text);
        let fits = |line: &&portlayer_taskdef::log::LogLine| match kind {
            "the line " => exact.is_match(&line.text),
            "" => exact.is_match(&line.text) || line.text.contains(text),
            _ => line.text.starts_with(text),
        };
        let found = seen.log.iter().filter(fits).any(|line| {
            wanted_source
                .as_ref()
                .is_none_or(|source| *line.source == **source)
        });
        if !found {
            missing.push(text.to_owned());
        }
    }
    hold(missing.is_empty(), || format!("missing {missing:?}"))
}

fn headers(_: &Captures<'_>, seen: &Observed) -> Answer {
    let good = |post: &crate::server::Request| {
        let has = |name: &str, test: &dyn Fn(&str) -> bool| {
            post.headers.get(name).is_some_and(|value| test(value))
        };
        has("content-type", &|value| value == "application/octet-stream")
            && has("content-length", &|value| {
                value == post.body.len().to_string()
            })
            && has("content-md5", &|value| value.len() == 24)
            && has("content-digest", &|value| {
                value.starts_with("sha-256=:") && value.ends_with(':')
            })
    };
    hold(seen.posts.first().is_some_and(good), || {
        format!("{:?}", seen.posts.first().map(|post| &post.headers))
    })
}

/// Bodies of the callbacks.
fn callbacks(seen: &Observed) -> Vec<serde_json::Value> {
    let json = |post: &&crate::server::Request| {
        post.method == "POST"
            && post
                .headers
                .get("content-type")
                .is_some_and(|kind| kind == "application/json")
    };
    seen.posts
        .iter()
        .filter(json)
        .filter_map(|post| serde_json::from_slice(&post.body).ok())
        .collect()
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
