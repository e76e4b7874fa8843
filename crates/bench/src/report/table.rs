//! Tables for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{Group, Results, number};
use crate::machine::Machine;

/// One line about the machine.
pub(crate) fn machine(machine: &Machine) -> String {
    let Machine {
        cpus,
        memory_mib,
        kernel,
        file_system,
        cgroups,
        favordynmods,
        containerd,
        runc,
        load,
    } = machine;
    let dynmods = if *favordynmods { "on" } else { "off" };
    format!(
        "{cpus} cpus, {memory_mib} MiB, kernel {kernel}, {file_system}, cgroups {cgroups}, favordynmods {dynmods}, \
         containerd {containerd}, runc {runc}, load {load:.2}"
    )
}

/// A group with, for each figure, how it stands to each of the `against` figures.
pub(crate) fn group(group: &Group, against: &[&str]) -> String {
    let against: Vec<(&str, f64)> = against
        .iter()
        .filter_map(|name| Some((*name, group.median(name)?)))
        .collect();
    let mut header = vec![
        String::new(),
        format!("median {}", group.unit.text()),
        "p10".to_owned(),
        "p90".to_owned(),
        "n".to_owned(),
    ];
    header.extend(against.iter().map(|(name, _)| format!("x {name}")));
    let rows = group.figures.iter().map(|figure| {
        let summary = figure.summary;
        let mut row = vec![
            figure.name.clone(),
            number(summary.median),
            number(summary.p10),
            number(summary.p90),
            summary.n.to_string(),
        ];
        row.extend(
            against
                .iter()
                .map(|(_, base)| format!("{:.2}", summary.median / base)),
        );
        row
    });
    titled(&group.title, &group.note, header, rows)
}

/// The targets and whether they were met.
pub(crate) fn targets(results: &Results) -> String {
    let header = ["target", "bound", "measured", ""]
        .map(str::to_owned)
        .to_vec();
    let rows = results.targets.iter().map(|target| {
        vec![
            target.name.clone(),
            format!("{} {}", target.bound.sign(), number(target.bound.value())),
            number(target.measured),
            if target.met() { "met" } else { "MISSED" }.to_owned(),
        ]
    });
    titled("What it must reach", "", header, rows)
}

/// A table with a heading; the first column is text, the others are numbers.
pub(crate) fn titled(
    title: &str,
    note: &str,
    header: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("\n{title}\n");
    if !note.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(text, "{table}");
    text
}
