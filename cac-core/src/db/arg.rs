//! Values that go into a statement. Which SQL type they become is each driver's matter; the text is rendered in `render`.

use chrono::{DateTime, Utc};

/// One value for one `?`.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Int(Option<i64>),
    Bool(Option<bool>),
    /// A NUL character is bound as U+FFFD on every database, because PostgreSQL has no text with NUL.
    Text(Option<String>),
    /// Cut to milliseconds when bound.
    Time(Option<DateTime<Utc>>),
    /// Expands to `(?, ?, …)`, for `IN ?`.
    Ids(Vec<i64>),
    /// The same with texts.
    Texts(Vec<String>),
}

/// `args![a, b]`: the values of a statement, in the order of its `?`.
#[macro_export]
macro_rules! args {
    () => { ::std::vec::Vec::<$crate::db::Arg>::new() };
    ($($value:expr),+ $(,)?) => { ::std::vec![$($crate::db::Arg::from($value)),+] };
}

macro_rules! from {
    ($($source:ty => $variant:ident, $convert:expr;)+) => {$(
        impl From<$source> for Arg {
            fn from(value: $source) -> Self {
                Self::$variant(Some(($convert)(value)))
            }
        }
        impl From<Option<$source>> for Arg {
            fn from(value: Option<$source>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )+};
}

from! {
    i64 => Int, std::convert::identity;
    i32 => Int, i64::from;
    u32 => Int, i64::from;
    u16 => Int, i64::from;
    bool => Bool, std::convert::identity;
    &str => Text, str::to_owned;
    String => Text, std::convert::identity;
    &String => Text, |text: &String| text.clone();
    DateTime<Utc> => Time, std::convert::identity;
}

impl From<&Option<String>> for Arg {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<i64>> for Arg {
    fn from(value: Vec<i64>) -> Self {
        Self::Ids(value)
    }
}

impl From<Vec<String>> for Arg {
    fn from(value: Vec<String>) -> Self {
        Self::Texts(value)
    }
}
