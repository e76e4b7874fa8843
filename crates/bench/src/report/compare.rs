//! This run beside an earlier one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Results, number, table};

/// The newest results in `directory` of another commit, by the time written in them.
pub(crate) fn newest_older(directory: &Path, commit: &str) -> Result<Option<Results>> {
    let mut newest: Option<Results> = None;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_run = path.extension().is_some_and(|ext| ext == "json")
            && path.file_stem().is_some_and(|stem| stem != "latest");
        if !is_run {
            continue;
        }
        // Written by an older version of the benchmark: cannot be compared with, which is no reason to fail.
        let Ok(results) = read(&path) else { continue };
        let newer = newest.as_ref().is_none_or(|n| n.time < results.time);
        if results.commit != commit && newer {
            newest = Some(results);
        }
    }
    Ok(newest)
}

/// Results as written by [`write()`].
pub(crate) fn read(path: &Path) -> Result<Results> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} holds no results", path.display()))
}

/// Keeps the results as the latest and, when they are worth comparing with, under their commit; returns the paths.
pub(crate) fn write(directory: &Path, results: &Results, keep: bool) -> Result<Vec<PathBuf>> {
    let text = serde_json::to_vec_pretty(results)?;
    let mut names = vec!["latest.json".to_owned()];
    if keep {
        names.push(format!("{}.json", results.commit));
    }
    let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
    for path in &paths {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(paths)
}

/// Every figure both runs have: before, now, and now as a multiple of before; `None` when there is no such figure.
pub(crate) fn table(before: &Results, now: &Results) -> Option<String> {
    let mut rows = Vec::new();
    for group in &now.groups {
        let Some(old) = before.group(&group.key) else {
            continue;
        };
        for figure in &group.figures {
            let Some(was) = old.median(&figure.name) else {
                continue;
            };
            let is = figure.summary.median;
            rows.push(vec![
                format!("{}: {}", group.title, figure.name),
                format!("{} {}", number(was), group.unit.text()),
                format!("{} {}", number(is), group.unit.text()),
                format!("{:.2}", is / was),
            ]);
        }
    }
    if rows.is_empty() {
        return None;
    }
    let note = if before.machine.favordynmods == now.machine.favordynmods
        && before.machine.kernel == now.machine.kernel
        && before.machine.cpus == now.machine.cpus
    {
        ""
    } else {
        "CAUTION: another machine or another cgroup state; compare ratios only"
    };
    let header = vec![
        String::new(),
        before.commit.clone(),
        now.commit.clone(),
        "ratio".to_owned(),
    ];
    let rows = rows.into_iter();
    Some(table::titled("Beside the earlier run", note, header, rows))
}
