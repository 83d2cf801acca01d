//! Reading Proxmox VE's loose JSON: numbers as strings, flags as 0, "1" or true, lists as text. Perl decides per answer.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

/// `#[serde(deserialize_with = "wire::loose")]` for a field that must be there, with `default` for one that need not.
pub(super) fn loose<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Loose,
{
    let value = Value::deserialize(deserializer)?;
    T::read(&value).ok_or_else(|| D::Error::custom(format!("expected {}, got {value}", T::NAME)))
}

/// What can be read from more than one JSON type.
pub(super) trait Loose: Sized {
    const NAME: &'static str;
    fn read(value: &Value) -> Option<Self>;
}

impl Loose for u64 {
    const NAME: &'static str = "a whole number";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_u64().or_else(|| {
                // Rounding by text, because a cast from a float would cut silently.
                let float = number.as_f64()?;
                format!("{float:.0}").parse().ok()
            }),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

impl Loose for u32 {
    const NAME: &'static str = "a whole number below 2^32";

    fn read(value: &Value) -> Option<Self> {
        u64::read(value).and_then(|number| Self::try_from(number).ok())
    }
}

impl Loose for f64 {
    const NAME: &'static str = "a number";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

impl Loose for bool {
    const NAME: &'static str = "a flag (0 or 1)";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_f64().map(|number| number != 0.0),
            Value::String(text) => match text.as_str() {
                "" | "0" => Some(false),
                "1" => Some(true),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Loose for String {
    const NAME: &'static str = "a text";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// A list of words, as an array or as text with commas, semicolons or blanks between them.
impl Loose for Vec<String> {
    const NAME: &'static str = "a list of words";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::new()),
            Value::Array(items) => items.iter().map(String::read).collect(),
            Value::String(text) => Some(
                text.split([',', ';', ' '])
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => None,
        }
    }
}

impl<T: Loose> Loose for Option<T> {
    const NAME: &'static str = T::NAME;

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            other => T::read(other).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Pitfall 24: numbers come as text, text as numbers, flags as both.
    #[test]
    fn every_form_that_was_seen() {
        assert_eq!(u64::read(&json!("100")), Some(100));
        assert_eq!(u64::read(&json!(1.0e3)), Some(1000));
        assert_eq!(u64::read(&json!(-1)), None);
        assert_eq!(u32::read(&json!(4_294_967_296_u64)), None);
        assert_eq!(f64::read(&json!(-7.9e-05)), Some(-7.9e-05));
        assert_eq!(f64::read(&json!("0.00")), Some(0.0));
        for (value, flag) in [
            (json!(0), false),
            (json!(1), true),
            (json!("0"), false),
            (json!("1"), true),
            (json!(true), true),
            (json!(""), false),
        ] {
            assert_eq!(bool::read(&value), Some(flag), "{value}");
        }
        assert_eq!(bool::read(&json!("yes")), None);
        assert_eq!(
            Vec::<String>::read(&json!("a,b;c")),
            Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
        );
        assert_eq!(Vec::<String>::read(&json!("")), Some(Vec::new()));
        assert_eq!(Option::<u64>::read(&json!(null)), Some(None));
        assert_eq!(Option::<u64>::read(&json!({})), None);
    }
}
