//! What is told: data on standard output, everything else on standard error; and how a command ends.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use serde::Serialize;

/// What a command fails with; its text is for the person who typed it.
pub(crate) type Failure = Box<dyn Error>;

/// A failure with an exit status of its own; every other failure is 1.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: u8,
    text: String,
}

/// As every help lists them.
pub(crate) const STATUSES: &str = "Exit status:
  0  done
  1  failed, or a problem was found
  2  the words or the values were not understood
  3  not signed in, or not allowed
  4  there is no such thing
  5  already taken, or the state does not allow it
  6  the portal cannot be reached or is busy: try again

Environment:
  CAC_URL, CAC_TOKEN  a portal and an API token for it, instead of a context
  CAC_CONTEXT         the context, where --context is not given
Contexts are kept in cac/contexts.json in $XDG_CONFIG_HOME, by default ~/.config.";

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Exit {}

impl Exit {
    pub(crate) fn with(status: u8, text: &str) -> Failure {
        let text = text.trim().to_owned();
        Box::new(Self { status, text })
    }

    pub(crate) fn failed(text: &str) -> Failure {
        Self::with(1, text)
    }

    pub(crate) fn usage(text: &str) -> Failure {
        Self::with(2, text)
    }

    pub(crate) fn not_signed_in(text: &str) -> Failure {
        Self::with(3, text)
    }

    pub(crate) fn not_found(text: &str) -> Failure {
        Self::with(4, text)
    }

    pub(crate) fn conflict(text: &str) -> Failure {
        Self::with(5, text)
    }

    pub(crate) fn try_again(text: &str) -> Failure {
        Self::with(6, text)
    }
}

/// The exit status of a failure, whether a portal told it or the library on this machine.
pub(crate) fn status(error: &(dyn Error + 'static)) -> u8 {
    use cac_core::Error as E;
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.status;
    }
    match error.downcast_ref::<E>() {
        Some(E::Invalid(_)) => 2,
        Some(E::Unauthenticated(_) | E::Forbidden(_)) => 3,
        Some(E::NotFound(_)) => 4,
        Some(E::Conflict { .. }) => 5,
        Some(E::Busy { .. } | E::TooMany { .. } | E::Unreachable(_)) => 6,
        _ => 1,
    }
}

/// Writes exactly these bytes. A reader that has seen enough, such as `head`, ends the command and is no failure.
pub(crate) fn raw(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Exit::with(0, "")),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Writes lines for people, without what a terminal would obey.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let lines = text.split_inclusive('\n');
    let line = |line: &str| match line.strip_suffix('\n') {
        Some(line) => harmless(line) + "\n",
        None => harmless(line),
    };
    raw(&lines.map(line).collect::<String>())
}

/// Writes a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    if !std::io::stdout().is_terminal() {
        return raw(&text);
    }
    // The same JSON, for a terminal that would obey or hide some of it.
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            c if c.is_control() || is_hidden(c) => write!(escaped, "\\u{:04x}", u32::from(c))?,
            c => escaped.push(c),
        }
    }
    raw(&escaped)
}

/// What turns a line around or cannot be seen.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Says that it is done: in words beside the data, or as JSON.
pub(crate) fn done(text: &str, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return json(&serde_json::json!({"success": true}));
    }
    note(text);
    Ok(())
}

/// Text of somebody else's without the characters that a terminal would obey, and those that turn a line around or cannot be seen.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => c,
        c if c.is_control() || is_hidden(c) => '\u{fffd}',
        c => c,
    };
    text.trim_end_matches('\r').chars().map(shown).collect()
}

/// Writes rows in columns under their headings.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| harmless(&cell)));
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

/// Writes what there is of one thing, a line for each; empty ones are left out.
pub(crate) fn sheet<const N: usize>(rows: [(&str, String); N]) -> Result<(), Failure> {
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    let lines: String = rows
        .map(|(name, value)| format!("{name:<12} {}\n", harmless(value)))
        .collect();
    data(&lines)
}

/// Says something to the person, beside the data. Nobody may be there to read it.
pub(crate) fn note(text: &str) {
    for line in text.lines() {
        let _ = writeln!(std::io::stderr(), "{}", harmless(line));
    }
}

/// Says why a command failed.
pub(crate) fn error(error: &dyn Error) {
    for line in error.to_string().lines() {
        note(&format!("cac: {line}"));
    }
}
