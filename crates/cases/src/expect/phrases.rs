//! The phrases that are read, and what each means.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{Answer, each, literal, pattern, regex};
use crate::fixtures::BUILDER_METADATA;
use crate::observed::Observed;

type Check = fn(&Captures<'_>, &Observed) -> Answer;

/// Phrases and what they mean; the first that fits counts.
pub(super) static PHRASES: LazyLock<Vec<(Regex, Check)>> = LazyLock::new(|| {
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
        (
            r"^(?:desire|ours|strict mode|in strict mode)\b[^`]*(?:rejected|REJECTED|refused)[^`]*`([^`]+)`",
            |found, seen| {
                let told = seen
                    .refused
                    .as_ref()
                    .or(seen.refused_in_strict_mode.as_ref());
                hold(told.is_some_and(|told| told.contains(&found[1])), || {
                    format!("it says {told:?}")
                })
            },
        ),
        (r"^desire\b[^`]*(?:rejected|REJECTED|refused)", |_, seen| {
            hold(seen.refused.is_some(), || "it was accepted".to_owned())
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
        (r"harness (?:waits for|cancels)", |_, seen| {
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
            r"^failure_reason (equals|contains|starts with|begins with|has the prefix|ends with|has the suffix|is)\b (.*`.*)$",
            reason,
        ),
        (r"^(?:the reason is )?`([^`]+)`$", |found, seen| {
            task(seen, |task| {
                hold(pattern(&found[1]).is_match(&task.failure_reason), || {
                    task.failure_reason.clone()
                })
            })
        }),
        (r"^the \w+ fails$", |_, seen| {
            task(seen, |task| {
                hold(task.failed, || "it did not fail".to_owned())
            })
        }),
        (r"^the (?:.* )?write succeeds$", |_, seen| {
            hold(
                seen.log.iter().any(|line| line.text.contains("rc=0")),
                || "no rc=0 in the log".to_owned(),
            )
        }),
        (r"^the connection was refused$", |_, seen| {
            task(seen, |task| {
                hold(!task.result.is_empty() && task.result.trim() != "0", || {
                    format!("the result is {:?}", task.result)
                })
            })
        }),
        (r"^a conditional GET is sent", |_, seen| {
            let conditional = |get: &crate::server::Request| {
                get.headers.contains_key("if-none-match")
                    || get.headers.contains_key("if-modified-since")
            };
            hold(seen.gets.iter().any(conditional), || {
                format!("{:?}", seen.gets)
            })
        }),
        (r"^304 reuses the extracted directory", |_, seen| {
            let sized = regex(r"^Downloaded .*\([0-9.]+[BKMGT]\)$");
            let again = seen.log.iter().find(|line| sized.is_match(&line.text));
            task(seen, |task| {
                hold(!task.failed && again.is_none(), || {
                    format!(
                        "{:?}, {:?}",
                        task.failure_reason,
                        again.map(|line| &line.text)
                    )
                })
            })
        }),
        (
            r"^the directory is a read-only bind mount: the touch fails",
            |_, seen| {
                let tried = seen.sent.to_string().contains("! touch");
                task(seen, |task| {
                    hold(tried && !task.failed, || task.failure_reason.clone())
                })
            },
        ),
        (
            r"^the fetch is made by the executor on the host, so no egress rule is needed",
            |_, seen| {
                let ruled = seen.sent.get("egress_rules").is_some();
                hold(!ruled && !seen.gets.is_empty(), || {
                    format!("{} requests", seen.gets.len())
                })
            },
        ),
        (r"^adding `([a-z_]+)` makes it valid", |found, seen| {
            let mut sent = seen.sent.clone();
            sent[&found[1]] = "root".into();
            let strict = portlayer_taskdef::diego::Rules { strict: true };
            let read = portlayer_taskdef::diego::read_json(sent.to_string().as_bytes(), &strict);
            hold(read.is_ok(), || format!("{:?}", read.err()))
        }),
        (
            r"^cancel of an unknown guid: ResourceNotFound",
            |_, seen| {
                hold(seen.cancel_of_unknown == Some(13), || {
                    format!("{:?}", seen.cancel_of_unknown)
                })
            },
        ),
        (r"^no container is (?:created|made|started)", |_, seen| {
            let made = |text: &str| text.contains("successfully created container");
            hold(!seen.log.iter().any(|line| made(&line.text)), || {
                "one was".to_owned()
            })
        }),
        (
            r"^(?:nothing is logged|the log is empty|log is empty|no log lines?)",
            |_, seen| hold(seen.log.is_empty(), || format!("{} lines", seen.log.len())),
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
        (r"^result (?:is )?empty", |_, seen| result(seen, "")),
        (
            r"^result (?:is the first|has|is) (\d+) bytes",
            |found, seen| {
                task(seen, |task| {
                    hold(task.result.len().to_string() == found[1], || {
                        format!("{} bytes", task.result.len())
                    })
                })
            },
        ),
        (
            r"^result (starts|begins|ends) with `([^`]+)`",
            |found, seen| {
                task(seen, |task| {
                    let good = match &found[1] {
                        "ends" => task.result.trim_end().ends_with(&found[2]),
                        _ => task.result.starts_with(&found[2]),
                    };
                    hold(good, || format!("it is {:?}", task.result))
                })
            },
        ),
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
        (r"^result (?:also )?contains (.*`.*)$", |found, seen| {
            let missing: Vec<_> = quoted(&found[1])
                .into_iter()
                .filter(|text| {
                    !seen
                        .completed
                        .as_ref()
                        .is_some_and(|task| task.result.contains(text))
                })
                .collect();
            task(seen, |task| {
                hold(missing.is_empty(), || {
                    format!("missing {missing:?} in {:?}", task.result)
                })
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
            r"^(?:the )?log (?:also )?(?:contains|has|shows) (.*)$",
            |found, seen| log(&found[1], seen),
        ),
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
            r"^(?:exactly )?(one|two|three|four|\d+) (GET|POST|callback|request)s?\b[^`]*$",
            |found, seen| {
                let seen = match &found[2] {
                    "GET" => seen.gets.len(),
                    "POST" => seen.posts.len(),
                    "callback" => callbacks(seen).len(),
                    _ => seen.gets.len() + seen.posts.len(),
                };
                hold(Some(seen) == number(&found[1]), || format!("{seen}"))
            },
        ),
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

/// `a`, or one of `a` or `b`, or all of `a` and `b`.
fn reason(found: &Captures<'_>, seen: &Observed) -> Answer {
    let prose = found[2].split(" (").next().unwrap_or_default();
    let wanted = quoted(prose);
    task(seen, |task| {
        let reason = &task.failure_reason;
        let fits = |wanted: &String| match &found[1] {
            "contains" => reason.contains(wanted.as_str()),
            "starts with" | "begins with" | "has the prefix" => reason.starts_with(wanted.as_str()),
            "ends with" | "has the suffix" => reason.ends_with(wanted.as_str()),
            _ => pattern(wanted).is_match(reason),
        };
        let good = match prose.contains("` or `") {
            true => wanted.iter().any(fits),
            false => !wanted.is_empty() && wanted.iter().all(fits),
        };
        hold(good, || format!("it is {reason:?}"))
    })
}

/// What stands in back quotes.
fn quoted(prose: &str) -> Vec<String> {
    let parts = prose.split('`').enumerate();
    let inside = parts.filter(|(at, _)| at % 2 == 1);
    inside.map(|(_, text)| text.to_owned()).collect()
}

fn number(word: &str) -> Option<usize> {
    let words = ["zero", "one", "two", "three", "four"];
    let word_value = words.iter().position(|other| *other == word);
    word_value.or_else(|| word.parse().ok())
}

fn result(seen: &Observed, wanted: &str) -> Answer {
    task(seen, |task| {
        hold(task.result == wanted, || format!("it is {:?}", task.result))
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

/// `a` and `b (SIZE)` with source s; the line `x`; a line starting `x`; words-with-hyphens. Other prose is not read.
fn log(prose: &str, seen: &Observed) -> Answer {
    let source = regex(r" (?:with|of|from) source `?([^\s`]+)`?");
    let wanted_source = source.captures(prose).map(|found| found[1].to_owned());
    let stderr = regex(r" on (?:stderr|standard error)").is_match(prose);
    let prose = source.replace(prose, "");
    let item = regex(
        r"(the line |a line starting |a line starting with |a line beginning )?`([^`]+)`|\b(\w+(?:-\w+)+)\b",
    );
    let once = regex(r"exactly once|only once").is_match(&prose);
    let (mut missing, mut items) = (Vec::new(), 0);
    for item in item.captures_iter(&prose) {
        items += 1;
        let kind = item.get(1).map_or("", |kind| kind.as_str());
        let text = item.get(2).or(item.get(3)).map_or("", |text| text.as_str());
        let exact = pattern(text);
        let fits = |line: &&portlayer_taskdef::log::LogLine| {
            let text_fits = match kind {
                "the line " => exact.is_match(&line.text),
                "" => exact.is_match(&line.text) || line.text.contains(text),
                _ => line.text.starts_with(text),
            };
            let source_fits = wanted_source
                .as_ref()
                .is_none_or(|source| *line.source == **source);
            text_fits && source_fits && (!stderr || line.stderr)
        };
        let count = seen.log.iter().filter(fits).count();
        if count == 0 || (once && count != 1) {
            missing.push(text.to_owned());
        }
    }
    match items {
        0 => Answer::NotRead,
        _ => hold(missing.is_empty(), || format!("missing {missing:?}")),
    }
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
