//! One SQL text with `?` and `"quoted"` names, rendered for the database at hand. It is not an SQL parser: it knows
//! quotes, placeholders and a few words, and never touches text inside single quotes.

use super::{Arg, Dialect, Error};

/// The text to send and whether it is worth keeping as a prepared statement.
pub(crate) struct Rendered {
    pub(crate) sql: String,
    pub(crate) args: Vec<Arg>,
}

/// The database's own clock as epoch milliseconds, not the start of the transaction or statement.
fn now_ms(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "CAST(ROUND(unixepoch('subsec') * 1000) AS INTEGER)",
        Dialect::MariaDb => "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)",
        Dialect::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    }
}

/// Words that stand for something else on some database, longest first.
fn word(dialect: Dialect, rest: &str) -> Option<(usize, &'static str)> {
    const LOCKS: [&str; 3] = ["FOR UPDATE SKIP LOCKED", "FOR UPDATE", "FOR SHARE"];
    if rest.starts_with("NOW_MS()") {
        return Some(("NOW_MS()".len(), now_ms(dialect)));
    }
    if dialect == Dialect::Sqlite {
        // A write transaction already holds the whole file there.
        return LOCKS
            .iter()
            .find(|lock| rest.starts_with(**lock))
            .map(|lock| (lock.len(), ""));
    }
    // MariaDB has no other word for it, and MySQL knows this one, too.
    if dialect == Dialect::MariaDb && rest.starts_with("FOR SHARE") {
        return Some(("FOR SHARE".len(), "LOCK IN SHARE MODE"));
    }
    None
}

pub(crate) fn render(dialect: Dialect, sql: &str, args: Vec<Arg>) -> Result<Rendered, Error> {
    let mut writer = Writer {
        dialect,
        sql: String::with_capacity(sql.len() + 32),
        args: Vec::with_capacity(args.len()),
    };
    let mut given = args.into_iter();
    let mut quoted = false;
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        match c {
            '\'' => {
                quoted = !quoted;
                writer.sql.push(c);
            }
            _ if quoted => writer.sql.push(c),
            '?' => {
                let arg = given
                    .next()
                    .ok_or_else(|| Error::Other(format!("fewer values than `?` in: {sql}")))?;
                writer.value(arg);
            }
            '"' if dialect == Dialect::MariaDb => writer.sql.push('`'),
            _ => match word(dialect, rest) {
                Some((length, replacement)) => {
                    used = length;
                    writer.sql.push_str(replacement);
                }
                None => writer.sql.push(c),
            },
        }
        rest = &rest[used..];
    }
    if given.next().is_some() {
        return Err(Error::Other(format!("more values than `?` in: {sql}")));
    }
    Ok(Rendered {
        sql: writer.sql,
        args: writer.args,
    })
}

struct Writer {
    dialect: Dialect,
    sql: String,
    args: Vec<Arg>,
}

impl Writer {
    fn value(&mut self, arg: Arg) {
        match arg {
            Arg::Ids(ids) => self.list(&ids),
            Arg::Texts(texts) => self.list(&texts),
            arg => self.one(arg),
        }
    }

    fn one(&mut self, arg: Arg) {
        self.args.push(arg);
        match self.dialect {
            Dialect::Postgres => {
                self.sql.push('$');
                self.sql.push_str(&self.args.len().to_string());
            }
            Dialect::Sqlite | Dialect::MariaDb => self.sql.push('?'),
        }
    }

    /// The last value is repeated up to a power of two, so that few different texts reach the statement cache.
    fn list<T: Clone>(&mut self, values: &[T])
    where
        Arg: From<T>,
    {
        let Some(last) = values.last() else {
            self.sql.push_str(match self.dialect {
                Dialect::MariaDb => "(SELECT 0 FROM DUAL WHERE 1 = 0)",
                Dialect::Sqlite | Dialect::Postgres => "(SELECT 0 WHERE 1 = 0)",
            });
            return;
        };
        self.sql.push('(');
        for position in 0..values.len().next_power_of_two() {
            if position > 0 {
                self.sql.push_str(", ");
            }
            self.one(Arg::from(values.get(position).unwrap_or(last).clone()));
        }
        self.sql.push(')');
    }
}

/// `sql` ends in one `(?, …)` after `VALUES`; the result has `rows` of them.
pub(crate) fn repeat_values(sql: &str, rows: usize) -> Result<String, Error> {
    let start = sql
        .rfind("VALUES (")
        .map(|at| at + "VALUES ".len())
        .filter(|_| sql.ends_with(')'))
        .ok_or_else(|| Error::Other(format!("no `VALUES (…)` at the end of: {sql}")))?;
    let tuple = &sql[start..];
    let mut text = String::with_capacity(sql.len() + rows * (tuple.len() + 2));
    text.push_str(sql);
    for _ in 1..rows {
        text.push_str(", ");
        text.push_str(tuple);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn text(dialect: Dialect, sql: &str, args: Vec<Arg>) -> String {
        render(dialect, sql, args).unwrap().sql
    }

    #[test]
    fn placeholders_and_names() {
        let sql =
            r#"SELECT "a" FROM "T" WHERE "b" = ? AND "c" = 'it''s "x"? NOW_MS()' AND "d" = ?"#;
        let quoted = r#"'it''s "x"? NOW_MS()'"#;
        assert_eq!(text(Dialect::Sqlite, sql, args![1i64, "x"]), sql);
        assert_eq!(
            text(Dialect::MariaDb, sql, args![1i64, "x"]),
            format!("SELECT `a` FROM `T` WHERE `b` = ? AND `c` = {quoted} AND `d` = ?")
        );
        assert_eq!(
            text(Dialect::Postgres, sql, args![1i64, "x"]),
            format!(r#"SELECT "a" FROM "T" WHERE "b" = $1 AND "c" = {quoted} AND "d" = $2"#)
        );
    }

    #[test]
    fn lists_are_padded_and_numbered_on() {
        let sql = "UPDATE t SET a = ? WHERE id IN ? AND b = ?";
        let rendered = render(Dialect::Postgres, sql, args![7i64, vec![1i64, 2, 3], "x"]).unwrap();
        assert_eq!(
            rendered.sql,
            "UPDATE t SET a = $1 WHERE id IN ($2, $3, $4, $5) AND b = $6"
        );
        assert_eq!(rendered.args, args![7i64, 1i64, 2i64, 3i64, 3i64, "x"]);
        assert_eq!(
            text(
                Dialect::MariaDb,
                "DELETE FROM t WHERE id IN ?",
                args![Vec::<i64>::new()]
            ),
            "DELETE FROM t WHERE id IN (SELECT 0 FROM DUAL WHERE 1 = 0)"
        );
    }

    #[test]
    fn row_locks_only_where_they_exist() {
        let sql = "SELECT 1 FROM t FOR UPDATE SKIP LOCKED";
        assert_eq!(text(Dialect::Sqlite, sql, args![]), "SELECT 1 FROM t ");
        assert_eq!(text(Dialect::MariaDb, sql, args![]), sql);
        assert_eq!(
            text(Dialect::Postgres, "SELECT 1 FOR UPDATE", args![]),
            "SELECT 1 FOR UPDATE"
        );
        assert_eq!(
            text(Dialect::Sqlite, "SELECT 1 FOR UPDATE", args![]),
            "SELECT 1 "
        );
        for (dialect, sql) in [
            (Dialect::Sqlite, "SELECT 1 "),
            (Dialect::MariaDb, "SELECT 1 LOCK IN SHARE MODE"),
            (Dialect::Postgres, "SELECT 1 FOR SHARE"),
        ] {
            assert_eq!(text(dialect, "SELECT 1 FOR SHARE", args![]), sql);
        }
    }

    #[test]
    fn a_wrong_number_of_values_is_refused() {
        for (sql, args) in [("SELECT ?", args![]), ("SELECT 1", args![1i64])] {
            assert!(matches!(
                render(Dialect::Sqlite, sql, args),
                Err(Error::Other(_))
            ));
        }
    }

    #[test]
    fn value_tuples_are_repeated() {
        assert_eq!(
            repeat_values("INSERT INTO t (a, b) VALUES (?, ?)", 3).unwrap(),
            "INSERT INTO t (a, b) VALUES (?, ?), (?, ?), (?, ?)"
        );
        assert!(repeat_values("INSERT INTO t VALUES (?) RETURNING id", 2).is_err());
    }
}
