//! Rows that come out of a statement: integer widths, signs, booleans and times are evened out here.

use chrono::{DateTime, Utc};
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::Error;

/// One row of an answer.
pub struct Row(pub(super) Inner);

pub(super) enum Inner {
    Sqlite(SqliteRow),
    MariaDb(MySqlRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column by name; a missing column, NULL in a type without it and a number out of range are errors.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, Error> {
        T::read(self, name)
    }
}

/// A Rust type that a column can be read as.
pub trait Column: Sized {
    #[doc(hidden)]
    fn read(row: &Row, name: &str) -> Result<Self, Error>;
}

fn unfit(name: &str, what: impl std::fmt::Display) -> Error {
    Error::Other(format!("column \"{name}\": {what}"))
}

fn integer(row: &Row, name: &str) -> Result<Option<i128>, Error> {
    match &row.0 {
        Inner::Sqlite(row) => Ok(row
            .try_get_unchecked::<Option<i64>, _>(name)?
            .map(i128::from)),
        Inner::MariaDb(row) => {
            let kind = row.try_get_raw(name)?.type_info().name().to_owned();
            if kind == "DECIMAL" {
                // SUM() of integers.
                let text: Option<String> = row.try_get_unchecked(name)?;
                let number = text.map(|text| text.parse::<i128>()).transpose();
                number.map_err(|error| unfit(name, error))
            } else if kind.ends_with("UNSIGNED") {
                Ok(row
                    .try_get_unchecked::<Option<u64>, _>(name)?
                    .map(i128::from))
            } else {
                Ok(row
                    .try_get_unchecked::<Option<i64>, _>(name)?
                    .map(i128::from))
            }
        }
        Inner::Postgres(row) => match row.try_get_raw(name)?.type_info().name() {
            "INT2" => Ok(row.try_get::<Option<i16>, _>(name)?.map(i128::from)),
            "INT4" => Ok(row.try_get::<Option<i32>, _>(name)?.map(i128::from)),
            _ => Ok(row.try_get::<Option<i64>, _>(name)?.map(i128::from)),
        },
    }
}

fn boolean(row: &Row, name: &str) -> Result<Option<bool>, Error> {
    match &row.0 {
        Inner::Postgres(row) => Ok(row.try_get(name)?),
        Inner::Sqlite(_) | Inner::MariaDb(_) => Ok(integer(row, name)?.map(|number| number != 0)),
    }
}

fn text(row: &Row, name: &str) -> Result<Option<String>, Error> {
    // Unchecked: ENUM, `_bin` collations and the catalogues' own text types are all text.
    match &row.0 {
        Inner::Sqlite(row) => Ok(row.try_get_unchecked(name)?),
        Inner::MariaDb(row) => Ok(row.try_get_unchecked(name)?),
        Inner::Postgres(row) => Ok(row.try_get_unchecked(name)?),
    }
}

fn time(row: &Row, name: &str) -> Result<Option<DateTime<Utc>>, Error> {
    match &row.0 {
        Inner::Sqlite(row) => {
            let raw = row.try_get_raw(name)?;
            if raw.is_null() {
                return Ok(None);
            }
            Ok(row.try_get_unchecked(name)?)
        }
        // Unchecked: DATETIME and TIMESTAMP are alike, since the session's time zone is UTC.
        Inner::MariaDb(row) => Ok(row.try_get_unchecked(name)?),
        Inner::Postgres(row) => Ok(row.try_get(name)?),
    }
}

macro_rules! columns {
    ($($kind:ty => |$row:ident, $name:ident| $read:expr;)+) => {$(
        impl Column for Option<$kind> {
            fn read($row: &Row, $name: &str) -> Result<Self, Error> {
                $read
            }
        }
        impl Column for $kind {
            fn read(row: &Row, name: &str) -> Result<Self, Error> {
                <Option<$kind>>::read(row, name)?.ok_or_else(|| unfit(name, "unexpected NULL"))
            }
        }
    )+};
}

fn fit<T: TryFrom<i128>>(row: &Row, name: &str) -> Result<Option<T>, Error> {
    let Some(number) = integer(row, name)? else {
        return Ok(None);
    };
    T::try_from(number)
        .map(Some)
        .map_err(|_| unfit(name, format!("{number} is out of range")))
}

columns! {
    i64 => |row, name| fit(row, name);
    i32 => |row, name| fit(row, name);
    u64 => |row, name| fit(row, name);
    u32 => |row, name| fit(row, name);
    u16 => |row, name| fit(row, name);
    bool => |row, name| boolean(row, name);
    String => |row, name| text(row, name);
    DateTime<Utc> => |row, name| time(row, name);
}
