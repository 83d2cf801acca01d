//! What undoing a migration would lose. Each migration that drops something says here whether anybody would miss it; a test compares this
//! with the texts, so that none is forgotten.

use super::migration::Migration;
use crate::db::Tx;
use crate::{Result, args};

/// Things that a migration's `down` drops and that somebody would miss.
struct Kept {
    /// The migration's name, without its number.
    migration: &'static str,
    /// Tables, or columns as `Table.column`.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the texts")
    )]
    drops: &'static [&'static str],
    /// Counts what there is of it, as `n`.
    count: &'static str,
    /// `{n}` stands for the number.
    what: &'static str,
    /// How it is saved first, if it can be.
    first: Option<&'static str>,
}

const KEPT: &[Kept] = &[
    Kept {
        migration: "cac",
        drops: &["Settings", "Containers.marker"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "marker" IS NOT NULL"#,
        what: "the mark by which {n} containers are known as made by this installation",
        first: None,
    },
    Kept {
        migration: "cac",
        drops: &[
            "Containers.sshPublicKey",
            "Containers.cores",
            "Containers.memory",
            "Containers.disk",
            "Containers.template",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "sshPublicKey" IS NOT NULL OR "cores" IS NOT NULL
            OR "memory" IS NOT NULL OR "disk" IS NOT NULL OR "template" IS NOT NULL"#,
        what: "sizes, template or SSH key of {n} containers",
        first: None,
    },
    Kept {
        migration: "cac",
        drops: &[
            "Jobs.kind",
            "Jobs.payload",
            "Jobs.checkpoint",
            "Jobs.containerId",
            "Jobs.reason",
            "Jobs.startedAt",
            "Jobs.finishedAt",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "kind" IS NOT NULL OR "reason" IS NOT NULL"#,
        what: "what {n} jobs did to which container, and how they ended",
        first: None,
    },
    Kept {
        migration: "cac",
        drops: &[
            "Nodes.bridge",
            "Nodes.storage",
            "Nodes.enabled",
            "Nodes.tlsFingerprint",
            "Nodes.aiContainer",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "Nodes" WHERE "bridge" IS NOT NULL OR "storage" IS NOT NULL
            OR "tlsFingerprint" IS NOT NULL OR "aiContainer" IS NOT NULL OR "enabled" = FALSE"#,
        what: "settings of {n} nodes (TLS fingerprint, label, storage, bridge, whether it is enabled)",
        first: None,
    },
    Kept {
        migration: "life",
        drops: &["Quotas"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Quotas""#,
        what: "limits of {n} users",
        first: Some("save what `cac quota list --json` prints"),
    },
    Kept {
        migration: "life",
        drops: &["Containers.protected"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "protected" = TRUE"#,
        what: "the protection of {n} containers from deletion",
        first: None,
    },
    Kept {
        migration: "templates",
        drops: &["Nodes.templates"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Nodes" WHERE "templates" IS NOT NULL AND "templates" <> ''"#,
        what: "names of templates on {n} nodes",
        first: Some("save what `cac node list --json` prints"),
    },
    Kept {
        migration: "tokens",
        drops: &["Tokens"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Tokens""#,
        what: "{n} API tokens",
        first: None,
    },
    Kept {
        migration: "audit",
        drops: &["AuditEntries"],
        // An undoing before this one wrote an entry, and that alone is no reason to refuse this one.
        count: r#"SELECT COUNT(*) AS "n" FROM "AuditEntries" WHERE "action" NOT IN ('migration_apply', 'migration_undo')"#,
        what: "{n} entries of the audit log",
        first: Some("save what GET /audit.csv sends"),
    },
    Kept {
        migration: "account_requests",
        drops: &["AccountRequests"],
        count: r#"SELECT COUNT(*) AS "n" FROM "AccountRequests""#,
        what: "{n} account requests",
        first: Some("save what `cac request list --json` prints"),
    },
    Kept {
        migration: "sealed",
        drops: &["Nodes.secretSealed"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Nodes" WHERE "secretSealed" IS NOT NULL AND "secret" IS NULL"#,
        what: "{n} encrypted secrets of nodes",
        first: Some("run `cac secret export --in-plain-text`"),
    },
    Kept {
        migration: "routes",
        drops: &["Services.timeout", "Services.maxBody", "Services.https"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Services" WHERE "timeout" IS NOT NULL OR "maxBody" IS NOT NULL OR "https" = TRUE"#,
        what: "time limit, largest body or HTTPS of {n} services",
        first: None,
    },
    Kept {
        migration: "audit_changes",
        drops: &["AuditEntries.changes"],
        count: r#"SELECT COUNT(*) AS "n" FROM "AuditEntries" WHERE "changes" IS NOT NULL"#,
        what: "what {n} entries of the audit log say of fields before and after",
        first: Some("save what GET /audit.csv sends"),
    },
    Kept {
        migration: "deletion_requests",
        drops: &[
            "Containers.changeError",
            "Containers.deletionError",
            "Containers.deletionRequestedBy",
            "Containers.deletionRequestedAt",
            "Containers.deletionJobId",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "changeError" IS NOT NULL OR "deletionError" IS NOT NULL OR "deletionRequestedAt" IS NOT NULL"#,
        what: "who wants {n} containers deleted, or why a change or deletion of them failed",
        first: None,
    },
    Kept {
        migration: "proofs",
        drops: &[
            "AccountRequests.confirmedAt",
            "AccountRequests.network",
            "AccountRequests.address",
            "rows of AccountRequests",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "AccountRequests""#,
        what: "whether the e-mail addresses of {n} account requests are confirmed, and where they came from",
        first: Some("save what `cac request list --json` prints"),
    },
    Kept {
        migration: "identity",
        drops: &[
            "Containers.identityMismatchAt",
            "Containers.unverifiedSince",
        ],
        count: r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "identityMismatchAt" IS NOT NULL OR "unverifiedSince" IS NOT NULL"#,
        what: "that {n} containers are unverified, or others in Proxmox VE",
        first: Some("save what `cac container list --all --json` prints"),
    },
    Kept {
        migration: "identity",
        drops: &["Quotas.ports", "Quotas.services"],
        count: r#"SELECT COUNT(*) AS "n" FROM "Quotas" WHERE "ports" IS NOT NULL OR "services" IS NOT NULL"#,
        what: "limits on ports and services of {n} users",
        first: Some("save what `cac quota list --json` prints"),
    },
    Kept {
        migration: "people",
        drops: &["UserStates", "rows of Tokens"],
        count: r#"SELECT COUNT(*) AS "n" FROM "UserStates" WHERE "state" IN ('missing', 'returned')"#,
        what: "that {n} users were deleted in Proxmox VE and wait for a decision, and their API tokens",
        first: Some("decide about them with `cac user update NAME --person same` or `new`"),
    },
];

/// What `down` drops and nobody misses: it is made again, or is about a moment.
#[cfg(test)]
const EPHEMERAL: &[&str] = &[
    "LoginFailures",
    "IdempotencyKeys",
    "Locks",
    "Listeners",
    "Proxies",
    "ProxyRevisions",
    "ProxyServices",
    "Revisions",
    "Routes",
    "Containers.jobId",
    "Containers.state",
    "Containers.lane",
    "Jobs.attempts",
    "Jobs.startAfter",
    "Jobs.cancelRequested",
    "Jobs.runner",
    "Jobs.leaseUntil",
    "Jobs.fence",
    "Jobs.retries",
    "Jobs.turn",
    "Sessions.adminCheckedAt",
    "Sessions.admin",
    "Sessions.username",
    "Revisions.leftOut",
    "Proxies.taken",
    "Proxies.address",
    "Proxies.tokenExpires",
    "Tokens.expiryMailedAt",
    "Sessions.provedAt",
    "Containers.cluster",
    "Nodes.cluster",
    "Containers.addressRefusal",
    "Containers.refusedAddress",
    "Leases",
    "OwnAddresses",
    "AddressHolds",
    "SignInOrigins",
    "rows of Locks",
    "rows of Revisions",
    "rows of ProxyRevisions",
    "ProxyRevisions.leftOut",
];

/// What undoing this migration would lose now, each as words for people, and how it is saved first.
pub(super) struct Loss {
    pub(super) what: String,
    pub(super) first: Option<&'static str>,
}

pub(super) async fn find(tx: &mut Tx, migration: &Migration) -> Result<Vec<Loss>> {
    let mut found = Vec::new();
    for kept in KEPT.iter().filter(|kept| kept.migration == migration.name) {
        let count: i64 = tx.one(kept.count, args![]).await?.get("n")?;
        if count > 0 {
            found.push(Loss {
                what: kept.what.replace("{n}", &count.to_string()),
                first: kept.first,
            });
        }
    }
    Ok(found)
}

pub(super) fn listed(losses: &[Loss]) -> String {
    let what: Vec<&str> = losses.iter().map(|loss| loss.what.as_str()).collect();
    what.join("; ")
}

/// Why an undoing does not begin, and what to do.
pub(super) fn refusal(title: &str, losses: &[Loss]) -> String {
    let first: Vec<&str> = losses.iter().filter_map(|loss| loss.first).collect();
    let mut text = format!(
        "undoing {title} would lose {}, so nothing was changed.",
        listed(losses)
    );
    if !first.is_empty() {
        text += &format!(" First {}.", first.join("; then "));
    }
    text + " `cac migrate down --discard` undoes it all the same, and loses what is left"
}

#[cfg(test)]
mod tests {
    use super::super::migration::{Direction, MIGRATIONS};
    use super::*;
    use crate::db::Dialect;

    /// What a statement takes away. One that is not understood is no statement of an undoing.
    fn dropped(statement: &str) -> Vec<String> {
        let lines = statement.lines();
        let text: Vec<&str> = lines
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect();
        let text = text.join("\n").replace(['"', '`', ';'], "");
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["DROP", "TABLE", table] => vec![table.to_owned()],
            ["DELETE", "FROM", table, ..]
            | ["DELETE", _, "FROM", table, ..]
            | ["UPDATE", table, ..] => {
                vec![format!("rows of {table}")]
            }
            ["ALTER", "TABLE", table, ..] => {
                let mut depth = 0;
                // A comma within parentheses parts no clauses.
                let clauses = text.split_once(table).unwrap().1.split(|letter| {
                    depth += i32::from(letter == '(') - i32::from(letter == ')');
                    letter == ',' && depth == 0
                });
                let words = clauses.map(|clause| clause.split_ascii_whitespace().collect());
                let column = |words: Vec<&str>| match words[..] {
                    ["DROP" | "ALTER", "COLUMN", column, ..] | ["MODIFY", column, ..] => {
                        Some(format!("{table}.{column}"))
                    }
                    ["DROP", "INDEX" | "CONSTRAINT" | "KEY", _]
                    | ["DROP", "FOREIGN" | "PRIMARY", "KEY", ..]
                    | ["ADD", ..]
                    | ["RENAME", "TO", _] => None,
                    _ => panic!("{statement} is not read: {words:?}"),
                };
                words.filter_map(column).collect()
            }
            // Nothing of these takes anything away.
            ["DROP", "INDEX", ..] | ["CREATE", ..] | ["INSERT", ..] | [] => vec![],
            _ => panic!("{statement} is not read"),
        }
    }

    /// Whoever adds a migration says in this file what its `down` would lose.
    #[test]
    fn each_thing_that_is_dropped_is_known_to_be_missed_or_not() {
        let (mut seen, mut unknown) = (0, vec![]);
        for migration in MIGRATIONS {
            let kept = KEPT.iter().filter(|kept| kept.migration == migration.name);
            let kept: Vec<&str> = kept.flat_map(|kept| kept.drops.iter().copied()).collect();
            let dialects = [Dialect::Sqlite, Dialect::MariaDb, Dialect::Postgres].into_iter();
            let statements =
                dialects.flat_map(|dialect| migration.statements(Direction::Down, dialect));
            for thing in statements.flat_map(|statement| dropped(&statement)) {
                if !kept.contains(&&*thing) && !EPHEMERAL.contains(&&*thing) {
                    unknown.push(format!("{} drops {thing}", migration.title()));
                }
                seen += 1;
            }
        }
        assert!(
            unknown.is_empty(),
            "{unknown:#?}: say in KEPT or EPHEMERAL whether it is missed"
        );
        assert!(seen > 120, "{seen}");
        for kept in KEPT {
            let known = |migration: &&Migration| migration.name == kept.migration;
            assert!(MIGRATIONS.iter().any(|m| known(&m)), "{}", kept.migration);
        }
    }
}
