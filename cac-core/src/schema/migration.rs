//! The migrations that are compiled in, their texts cut into statements, and the files of the next one.

use std::path::{Path, PathBuf};

use super::refused;
use crate::db::Dialect;
use crate::{Error, Result};

/// One numbered change; the texts are in the order of `DIALECTS`.
pub(super) struct Migration {
    pub(super) number: i32,
    pub(super) name: &'static str,
    up: [&'static str; 3],
    down: [&'static str; 3],
}

const DIALECTS: [Dialect; 3] = [Dialect::Sqlite, Dialect::MariaDb, Dialect::Postgres];

macro_rules! text {
    ($directory:literal, $file:literal) => {
        include_str!(concat!(
            "../../../migrations/",
            $directory,
            "/",
            $file,
            ".sql"
        ))
    };
}

macro_rules! migration {
    ($number:literal, $name:literal, $directory:literal) => {
        Migration {
            number: $number,
            name: $name,
            up: [
                text!($directory, "up.sqlite"),
                text!($directory, "up.mariadb"),
                text!($directory, "up.postgres"),
            ],
            down: [
                text!($directory, "down.sqlite"),
                text!($directory, "down.mariadb"),
                text!($directory, "down.postgres"),
            ],
        }
    };
}

/// Oldest first, numbered from 1 without gaps.
pub(super) const MIGRATIONS: &[Migration] = &[
    migration!(1, "original", "0001_original"),
    migration!(2, "cac", "0002_cac"),
    migration!(3, "wake", "0003_wake"),
    migration!(4, "life", "0004_life"),
    migration!(5, "templates", "0005_templates"),
    migration!(6, "tokens", "0006_tokens"),
    migration!(7, "audit", "0007_audit"),
    migration!(8, "account_requests", "0008_account_requests"),
    migration!(9, "sealed", "0009_sealed"),
    migration!(10, "proxies", "0010_proxies"),
    migration!(11, "job_history", "0011_job_history"),
    migration!(12, "routes", "0012_routes"),
    migration!(13, "left_out", "0013_left_out"),
    migration!(14, "proxy_services", "0014_proxy_services"),
    migration!(15, "audit_changes", "0015_audit_changes"),
    migration!(16, "deletion_requests", "0016_deletion_requests"),
    migration!(17, "proofs", "0017_proofs"),
    migration!(18, "identity", "0018_identity"),
    migration!(19, "addresses", "0019_addresses"),
    migration!(20, "people", "0020_people"),
    migration!(21, "address_holds", "0021_address_holds"),
];

/// The original's own tables; on its database this one is only recorded.
pub(super) const ORIGINAL: i32 = 1;
/// The one that changes the original's tables; undoing it undoes an adoption.
pub(super) const ADOPTING: i32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl Migration {
    pub(super) fn statements(&self, direction: Direction, dialect: Dialect) -> Vec<String> {
        split(self.text(direction, dialect))
    }

    /// `0002_cac`
    pub(super) fn title(&self) -> String {
        title(self.number, self.name)
    }

    /// The comment that stands in a text without statements.
    pub(super) fn remark(&self, direction: Direction, dialect: Dialect) -> String {
        let lines = self.text(direction, dialect).lines();
        let words: Vec<&str> = lines.map(|line| line.trim_start_matches("-- ")).collect();
        words.join(" ")
    }

    fn text(&self, direction: Direction, dialect: Dialect) -> &'static str {
        let texts = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        let index = DIALECTS.iter().position(|known| *known == dialect);
        texts[index.expect("every dialect is listed")]
    }
}

fn title(number: i32, name: &str) -> String {
    format!("{number:04}_{name}")
}

/// Statements end where a line ends in `;`; lines that start with `--` are comments.
fn split(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.starts_with("--")) {
        current.push_str(line);
        current.push('\n');
        if line.ends_with(';') {
            let statement = current.trim().trim_end_matches(';').to_owned();
            statements.push(statement);
            current.clear();
        }
    }
    if !current.trim().is_empty() {
        statements.push(current.trim().to_owned());
    }
    statements
}

/// Writes the six empty files of the next migration below `directory` (the project's `migrations/`) and names them
/// (`cac migrate new NAME`). The name is of `a-z`, `0-9` and `_`.
pub fn new(directory: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
        return Err(Error::invalid("name", "use 1 to 40 of a-z, 0-9 and _"));
    }
    let number = highest(directory)? + 1;
    let home = directory.join(title(number, name));
    std::fs::create_dir(&home).map_err(|error| unwritable(&home, &error))?;
    let mut files = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        for dialect in DIALECTS {
            let file = home.join(format!("{}.{}.sql", direction.name(), dialect.name()));
            std::fs::write(&file, "").map_err(|error| unwritable(&file, &error))?;
            files.push(file);
        }
    }
    Ok(files)
}

fn highest(directory: &Path) -> Result<i32> {
    let entries = std::fs::read_dir(directory).map_err(|error| unwritable(directory, &error))?;
    let on_disk = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.split_once('_')?.0.parse::<i32>().ok()
    });
    let compiled = MIGRATIONS.iter().map(|migration| migration.number);
    Ok(on_disk.chain(compiled).max().unwrap_or(0))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    refused(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_line_ends_only() {
        let text = "-- why;\nCREATE TABLE t (\n  a TEXT DEFAULT ';x'\n);\n\nDROP TABLE u;\n";
        assert_eq!(
            split(text),
            ["CREATE TABLE t (\n  a TEXT DEFAULT ';x'\n)", "DROP TABLE u"]
        );
        assert!(split("-- nothing\n").is_empty());
    }

    #[test]
    fn every_directory_is_compiled_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let entries = std::fs::read_dir(root).unwrap().flatten();
        let mut on_disk: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        on_disk.sort();
        let compiled: Vec<String> = MIGRATIONS.iter().map(Migration::title).collect();
        assert_eq!(on_disk, compiled);
        for (migration, number) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.number, number);
        }
    }

    #[test]
    fn the_next_migration_has_six_files() {
        let directory = tempfile::tempdir().unwrap();
        let files = new(directory.path(), "node_zone").unwrap();
        let expected = format!("{:04}_node_zone", MIGRATIONS.len() + 1);
        assert_eq!(files.len(), 6);
        for file in files {
            assert!(
                file.starts_with(directory.path().join(&expected)),
                "{}",
                file.display()
            );
            assert!(file.exists());
        }
        assert!(new(directory.path(), "Node Zone").is_err());
    }
}
