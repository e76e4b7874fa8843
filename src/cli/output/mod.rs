//! The only place of the program that writes to its standard output and error.

pub(crate) mod escape;
mod progress;
mod table;

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

pub(crate) use progress::{ProgressMode, Reporter};
pub(crate) use table::{Column, Style};

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// The same with all columns, nothing cut.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// One YAML document.
    Yaml,
    /// Ids only.
    Name,
}

/// Flags of every command that shows things.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OutputArgs {
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Ids only (the same as -o name)
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not cut long cells
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set; elsewhere if CLICOLOR_FORCE is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Decides from <https://no-color.org>, <https://bixense.com/clicolors> and `TERM=dumb`; a flag beats all.
    pub(crate) fn decide(self, variable: impl Fn(&str) -> Option<String>, terminal: bool) -> bool {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto
                if variable("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0") =>
            {
                true
            }
            ColorChoice::Auto => terminal && variable("TERM").is_none_or(|term| term != "dumb"),
        }
    }
}

/// Something that can be a row.
pub(crate) trait Row: Serialize {
    /// All columns.
    const COLUMNS: &'static [Column];

    /// A cell for every column, not escaped.
    fn cells(&self) -> Vec<Vec<u8>>;

    /// What `-o name` and `-q` show.
    fn name(&self) -> String;
}

/// Writes results in the form asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    format: Format,
    style: Style,
}

impl Out {
    /// Output as the flags say.
    pub(crate) fn new(args: OutputArgs, color: bool) -> Self {
        let format = if args.quiet {
            Format::Name
        } else {
            args.output
        };
        let wide = format == Format::Wide;
        Self {
            format,
            style: Style {
                wide,
                cut: !wide && !args.no_trunc,
                color,
            },
        }
    }

    /// The form asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A list.
    pub(crate) fn list<T: Row>(&self, rows: &[T]) -> io::Result<()> {
        write_out(&self.draw_list(rows)?)
    }

    /// The text of a list.
    pub(crate) fn draw_list<T: Row>(&self, rows: &[T]) -> io::Result<String> {
        match self.format {
            Format::Table | Format::Wide => {
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                Ok(table::rows(T::COLUMNS, &cells, self.style))
            }
            Format::Json | Format::Yaml => self.draw_value(&rows),
            Format::Jsonl => rows.iter().map(json_line).collect(),
            Format::Name => Ok(rows
                .iter()
                .map(|row| escape::escape(row.name().as_bytes()) + "\n")
                .collect()),
        }
    }

    /// One thing: `lines` for people, `value` for machines, `name` for `-o name`.
    pub(crate) fn one<T: Serialize>(
        &self,
        value: &T,
        name: &str,
        lines: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        let text = match self.format {
            Format::Table | Format::Wide => table::details(lines, self.style),
            Format::Json | Format::Yaml => self.draw_value(value)?,
            Format::Jsonl => json_line(value)?,
            Format::Name => escape::escape(name.as_bytes()) + "\n",
        };
        write_out(&text)
    }

    fn draw_value<T: Serialize>(&self, value: &T) -> io::Result<String> {
        if self.format == Format::Yaml {
            let text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
            if !text.chars().any(|c| c != '\n' && escape::is_active(c)) {
                return Ok(text);
            }
            // JSON is YAML too, and its escapes keep the terminal whole.
        }
        let text = serde_json::to_string_pretty(value)?;
        Ok(escape::escape_json(&text) + "\n")
    }
}

fn json_line<T: Serialize>(value: &T) -> io::Result<String> {
    Ok(escape::escape_json(&serde_json::to_string(value)?) + "\n")
}

/// Writes finished text to standard output; whoever made it has escaped it.
pub(crate) fn write_out(text: &str) -> io::Result<()> {
    raw(false, text.as_bytes())
}

/// Writes bytes of a task as they are, to standard output or error.
pub(crate) fn raw(stderr: bool, bytes: &[u8]) -> io::Result<()> {
    if stderr {
        io::stderr().lock().write_all(bytes)
    } else {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// Our standard output and error for bytes of a task, for async code: a reader that is slow holds nobody else up.
pub(crate) struct Streams {
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
        }
    }

    /// Writes bytes as they are; when this returns they are with the kernel.
    pub(crate) async fn write(&mut self, stderr: bool, bytes: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        if stderr {
            self.stderr.write_all(bytes).await?;
            self.stderr.flush().await
        } else {
            self.stdout.write_all(bytes).await?;
            self.stdout.flush().await
        }
    }
}

/// One JSON object on a line of its own.
pub(crate) fn write_json_line<T: Serialize>(value: &T) -> io::Result<()> {
    write_out(&json_line(value)?)
}

/// One line for people on standard error. A closed standard error is no reason to fail.
pub(crate) fn note(text: &str) {
    let line = format!("portlayer: {}\n", escape::escape_message(text));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// The lines of a failure; their text is escaped already but for what stands between the lines.
pub(crate) fn failure(text: &str) {
    for (at, line) in text.lines().enumerate() {
        let prefix = if at == 0 { "portlayer: " } else { "" };
        let line = format!("{prefix}{}\n", escape::escape_message(line));
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: &'static str,
        text: &'static str,
    }

    impl Row for Thing {
        const COLUMNS: &'static [Column] = &[Column::new("ID"), Column::new("TEXT")];

        fn cells(&self) -> Vec<Vec<u8>> {
            vec![self.id.into(), self.text.into()]
        }

        fn name(&self) -> String {
            self.id.to_owned()
        }
    }

    const THINGS: &[Thing] = &[
        Thing {
            id: "task://tasks/a",
            text: "plain",
        },
        Thing {
            id: "task://tasks/b",
            text: "\u{9b}2J\x1b[31m\u{202e}",
        },
    ];

    fn draw(output: Format, quiet: bool) -> String {
        Out::new(
            OutputArgs {
                output,
                quiet,
                no_trunc: false,
            },
            false,
        )
        .draw_list(THINGS)
        .unwrap()
    }

    #[test]
    fn every_form_is_inert_and_machine_forms_read_back() {
        for format in [
            Format::Table,
            Format::Wide,
            Format::Json,
            Format::Jsonl,
            Format::Yaml,
            Format::Name,
        ] {
            let text = draw(format, false);
            assert!(
                !text.chars().any(|c| c != '\n' && escape::is_active(c)),
                "{format:?}: {text:?}"
            );
        }
        let back: serde_json::Value = serde_json::from_str(&draw(Format::Json, false)).unwrap();
        assert_eq!(back[1]["text"], THINGS[1].text);
        let lines = draw(Format::Jsonl, false);
        let back: Vec<serde_json::Value> = lines
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(back[1]["text"], THINGS[1].text);
        let back: serde_json::Value = serde_saphyr::from_str(&draw(Format::Yaml, false)).unwrap();
        assert_eq!(back[1]["text"], THINGS[1].text);
    }

    #[test]
    fn quiet_is_ids_only() {
        assert_eq!(
            draw(Format::Table, true),
            "task://tasks/a\ntask://tasks/b\n"
        );
    }

    #[test]
    fn colour_follows_the_conventions() {
        let decide = |choice: ColorChoice, variables: &[(&str, &str)], terminal| {
            choice.decide(
                |name| {
                    variables
                        .iter()
                        .find(|(n, _)| *n == name)
                        .map(|(_, v)| (*v).to_owned())
                },
                terminal,
            )
        };
        assert!(decide(ColorChoice::Auto, &[], true));
        assert!(!decide(ColorChoice::Auto, &[], false));
        assert!(!decide(ColorChoice::Auto, &[("NO_COLOR", "1")], true));
        assert!(decide(ColorChoice::Auto, &[("NO_COLOR", "")], true));
        assert!(decide(ColorChoice::Auto, &[("CLICOLOR_FORCE", "1")], false));
        assert!(!decide(
            ColorChoice::Auto,
            &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
            true
        ));
        assert!(!decide(ColorChoice::Auto, &[("TERM", "dumb")], true));
        assert!(decide(ColorChoice::Always, &[("NO_COLOR", "1")], false));
        assert!(!decide(
            ColorChoice::Never,
            &[("CLICOLOR_FORCE", "1")],
            true
        ));
    }
}
