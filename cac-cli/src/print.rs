//! What is told: data on standard output, everything else on standard error.

use std::error::Error;
use std::io::{ErrorKind, Write as _};

use comfy_table::{Table, presets};
use serde::Serialize;

/// What a command fails with; its text is for the person who typed it.
pub(crate) type Failure = Box<dyn Error>;

/// Writes data. A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    data(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes rows in columns under their headings.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    data(&(lines.join("\n") + "\n"))
}

/// Says something to the person, beside the data.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Says why a command failed.
pub(crate) fn error(error: &dyn Error) {
    for line in error.to_string().lines() {
        eprintln!("cac: {line}");
    }
}
