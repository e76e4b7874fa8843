//! Lists and details for people.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use super::escape::escape;

/// Longest cell of a narrow table, in characters; ids are never cut.
const CUT_AT: usize = 48;

/// One column of a kind of row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Header.
    pub(crate) title: &'static str,
    /// Only with `-o wide`.
    pub(crate) wide: bool,
    /// May be cut in a narrow table.
    pub(crate) cut: bool,
    /// A number.
    pub(crate) right: bool,
}

impl Column {
    /// A column that is always shown in full.
    pub(crate) const fn new(title: &'static str) -> Self {
        Self {
            title,
            wide: false,
            cut: false,
            right: false,
        }
    }

    /// Only with `-o wide`.
    pub(crate) const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// May be cut.
    pub(crate) const fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// A number.
    pub(crate) const fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

/// What shapes a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// All columns.
    pub(crate) wide: bool,
    /// Cut long cells.
    pub(crate) cut: bool,
    /// Colour states.
    pub(crate) color: bool,
}

/// Draws rows below headers. Every cell is escaped here, so no row can forget to.
pub(crate) fn rows(columns: &[Column], rows: &[Vec<Vec<u8>>], style: Style) -> String {
    let mut table = new_table(style);
    let shown: Vec<usize> = (0..columns.len())
        .filter(|at| style.wide || !columns[*at].wide)
        .collect();
    table.set_header(shown.iter().map(|at| columns[*at].title));
    for row in rows {
        table.add_row(shown.iter().map(|at| {
            let text = row.get(*at).map_or(&[][..], Vec::as_slice);
            cell(text, columns[*at], style)
        }));
    }
    finish(&table)
}

/// Draws one thing as lines of name and value. An empty name continues the value above.
pub(crate) fn details(lines: &[(String, Vec<u8>)], style: Style) -> String {
    let mut table = new_table(style);
    for (name, value) in lines {
        let column = if name == "state" {
            Column::new("STATE")
        } else {
            Column::new("")
        };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{}:", escape(name.as_bytes()))
        };
        table.add_row(vec![
            Cell::new(name),
            cell(
                value,
                column,
                Style {
                    cut: false,
                    ..style
                },
            ),
        ]);
    }
    finish(&table)
}

fn new_table(style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Styling is decided by us: the library would only look at its own standard output.
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn finish(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // The library pads both sides of every cell.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

fn cell(text: &[u8], column: Column, style: Style) -> Cell {
    let mut shown = escape(text);
    if style.cut && column.cut && shown.chars().count() > CUT_AT {
        shown = shown.chars().take(CUT_AT - 1).chain(['…']).collect();
    }
    let mut cell = Cell::new(&shown);
    if column.right {
        cell = cell.set_alignment(CellAlignment::Right);
    }
    if style.color && column.title == "STATE" {
        let color = match shown.split(' ').next() {
            Some("ready" | "running" | "ok") => Some(Color::Green),
            Some("unavailable" | "failed") => Some(Color::Red),
            Some("paused") => Some(Color::Yellow),
            _ => None,
        };
        if let Some(color) = color {
            cell = cell.fg(color);
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("ID"),
        Column::new("STATE"),
        Column::new("SIZE").right(),
        Column::new("LABELS").cut(),
        Column::new("CHECKSUM").wide(),
    ];

    fn sample() -> Vec<Vec<Vec<u8>>> {
        let row = |cells: [&str; 5]| cells.map(Vec::from).to_vec();
        vec![
            row(["image://images/a", "ready", "12", "a=1", "sha256:00"]),
            row([
                "image://images/longer",
                "unavailable",
                "1234",
                "evil=\x1b]0;pwned\x07\u{202e}\nrow 2",
                "",
            ]),
        ]
    }

    const PLAIN: Style = Style {
        wide: false,
        cut: true,
        color: false,
    };

    #[test]
    fn a_table_is_columns_and_hostile_cells_are_inert() {
        assert_eq!(
            rows(COLUMNS, &sample(), PLAIN),
            concat!(
                "ID                     STATE        SIZE  LABELS\n",
                "image://images/a       ready          12  a=1\n",
                "image://images/longer  unavailable  1234  evil=\\x1b]0;pwned\\x07\\u{202e}\\nrow 2\n",
            )
        );
    }

    #[test]
    fn wide_shows_all_and_cuts_only_when_asked() {
        let mut data = sample();
        data[0][3] = "x".repeat(100).into();
        let narrow = rows(COLUMNS, &data, PLAIN);
        assert!(narrow.contains(&format!("{}…", "x".repeat(47))));
        let wide = rows(
            COLUMNS,
            &data,
            Style {
                wide: true,
                cut: false,
                color: false,
            },
        );
        assert!(wide.contains(&"x".repeat(100)));
        assert!(wide.contains("sha256:00"));
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        assert!(!rows(COLUMNS, &sample(), PLAIN).contains('\x1b'));
        let colored = rows(
            COLUMNS,
            &sample(),
            Style {
                color: true,
                ..PLAIN
            },
        );
        assert!(colored.contains("\x1b["));
        assert!(
            !colored.contains("\x1b]"),
            "the cell's own escape stays inert"
        );
    }

    #[test]
    fn details_are_names_and_values() {
        let lines = [
            ("id", "task://tasks/t"),
            ("argv", "a\tb"),
            ("", "more\u{7}"),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(
            details(&lines, PLAIN),
            "id:    task://tasks/t\nargv:  a\\tb\n       more\\x07\n"
        );
    }
}
