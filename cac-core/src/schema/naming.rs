//! Names of adopted rows against today's rules; rows that break them stay, are listed for admins, and are not rendered.

use crate::Result;
use crate::args;
use crate::container::is_label;
use crate::db::Db;
use serde::Serialize;

/// A row whose name breaks today's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamingViolation {
    /// `Containers` or `Services`.
    pub table: &'static str,
    /// The row's id.
    pub id: i64,
    /// The container that it is or belongs to.
    pub container: i64,
    pub name: String,
}

impl std::fmt::Display for NamingViolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            table, id, name, ..
        } = self;
        let rule = match *table {
            "Containers" => "a hostname is 1 to 63 of a-z, 0-9 and -, with no dash at either end",
            _ => "a public name is one or more such labels, joined by dots",
        };
        write!(f, "{table} row {id}: {name:?} ({rule})")
    }
}

/// Names are rendered in lower case, so capitals break no rule.
fn public_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name.len() <= 253 && name.split('.').all(is_label)
}

/// All rows that break the rules, containers first, in the order of their ids.
pub async fn naming_violations(db: &Db) -> Result<Vec<NamingViolation>> {
    let mut found = Vec::new();
    let sql = r#"SELECT "id", "hostname" FROM "Containers" ORDER BY "id""#;
    for row in db.all(sql, args![]).await? {
        let (id, name): (i64, String) = (row.get("id")?, row.get("hostname")?);
        if !is_label(&name.to_lowercase()) {
            found.push(NamingViolation {
                table: "Containers",
                id,
                container: id,
                name,
            });
        }
    }
    let sql = r#"SELECT "id", "containerId", "externalHostname" FROM "Services"
        WHERE "externalHostname" IS NOT NULL ORDER BY "id""#;
    for row in db.all(sql, args![]).await? {
        let name: String = row.get("externalHostname")?;
        if !public_name(&name) {
            let (id, container) = (row.get("id")?, row.get("containerId")?);
            found.push(NamingViolation {
                table: "Services",
                id,
                container,
                name,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_names() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "web-1", longest.as_str()] {
            assert!(is_label(good), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "ä",
            "a b",
            too_long.as_str(),
        ] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(public_name("www.example.org") && public_name("WWW.example.org"));
        assert!(!public_name("www..org") && !public_name("www.example.org;"));
    }
}
