//! What commands print: JSON when asked for, else tables that are plain text behind a pipe.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// `--json` was given.
    pub json: bool,
    /// A person looks at stdout.
    pub terminal: bool,
    colour: bool,
}

impl Output {
    pub fn new(json: bool) -> Output {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: set and not empty means no colour.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output { json, terminal, colour: terminal && !plain }
    }

    pub fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// One JSON object on one line.
    pub fn object<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Aligned columns; fitted to the terminal's width if there is one.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        self.line(&self.table_text(header, rows))
    }

    pub fn table_text(&self, header: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match self.terminal {
            true => table.set_content_arrangement(ContentArrangement::Dynamic),
            false => table.force_no_tty(),
        };
        table.set_header(header.iter().map(|title| match self.colour {
            true => Cell::new(title).add_attribute(Attribute::Bold),
            false => Cell::new(title),
        }));
        table.add_rows(rows);
        table.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
    }
}

/// A word to the user that is no result: on stderr, so that pipes stay clean.
pub fn note(text: &str) {
    // Nobody may be listening, and then it matters to nobody.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A bar over so many bytes, or a spinner when nobody knows; invisible unless stderr is a terminal.
pub fn progress(total: Option<u64>, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{prefix} {wide_bar} {bytes}/{total_bytes} {eta} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {prefix} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_string());
    bar
}

/// The last characters of an id: enough for a person to tell nodes apart.
pub fn short(id: &str) -> String {
    let skip = id.chars().count().saturating_sub(8);
    id.chars().skip(skip).collect()
}

/// Bytes for a person.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for larger in UNITS.into_iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == UNITS[0] { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_behind_a_pipe_is_plain_aligned_text() {
        let out = Output { json: false, terminal: false, colour: false };
        let rows = vec![vec!["a".into(), "1".into()], vec!["longer".into(), "22".into()]];
        insta::assert_snapshot!(out.table_text(&["name", "n"], rows), @r"
         name    n
         a       1
         longer  22
        ");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes_text(12), "12 B");
        assert_eq!(bytes_text(3 << 20), "3.0 MiB");
    }
}
