//! Parameters of one call as Proxmox VE reads them from query, form and JSON. Not the check against the contract.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::answer::Refusal;

/// Checked parameters: every value as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(pub(crate) BTreeMap<String, String>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that the contract requires; empty when it is absent all the same.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|text| text.parse().ok())
    }

    pub(crate) fn vmid(&self) -> u32 {
        self.get("vmid")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Parts of a list parameter: separated by comma, semicolon, blank or NUL.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map(split_list).unwrap_or_default()
    }

    /// Unchecked values as text, for the permission check that comes before the parameter check.
    pub(crate) fn lossy(raw: &Map<String, Value>) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Bool(true) => "1".to_owned(),
            Value::Bool(false) => "0".to_owned(),
            other => other.to_string(),
        };
        Self(raw.iter().map(|(k, v)| (k.clone(), text(v))).collect())
    }
}

pub(crate) fn split_list(text: &str) -> Vec<String> {
    text.split([',', ';', ' ', '\t', '\n', '\0'])
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

fn insert(params: &mut Map<String, Value>, name: String, value: Value) {
    match params.get_mut(&name) {
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => {
            params.insert(name, value);
        }
    }
}

/// Reads a form or a query: pairs end at `&` and `;`, a second bare `=` cuts the value off, `+` is a blank.
pub(crate) fn decode_form(text: &str) -> Map<String, Value> {
    let mut params = Map::new();
    for pair in text.split(['&', ';']).filter(|pair| !pair.is_empty()) {
        let mut parts = pair.split('=');
        let name = decode(parts.next().unwrap_or_default());
        let value = decode(parts.next().unwrap_or_default());
        insert(&mut params, name, Value::String(value));
    }
    params
}

/// Reads the body of a POST or PUT by its content type.
pub(crate) fn decode_body(
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Map<String, Value>, Refusal> {
    let kind = content_type.unwrap_or("application/x-www-form-urlencoded");
    if kind.starts_with("application/json") {
        if body.is_empty() {
            return Ok(Map::new());
        }
        return match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(Refusal::Plain(
                500,
                "Not a HASH reference at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 957."
                    .to_owned(),
            )),
            Err(error) => Err(Refusal::Plain(500, broken_json(body, &error))),
        };
    }
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Ok(decode_form(&String::from_utf8_lossy(body)));
    }
    Err(Refusal::Plain(
        506,
        format!("upload 'Content-Type '{kind}' not implemented"),
    ))
}

/// What Perl's parser says of a text that is no JSON.
fn broken_json(body: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(body);
    let place = if error.is_eof() {
        text.chars().count()
    } else {
        error.column().saturating_sub(1)
    };
    let rest: String = text.chars().skip(place).take(20).collect();
    let before = if rest.is_empty() {
        "(end of string)"
    } else {
        rest.as_str()
    };
    let expected = match text.trim_end().chars().last() {
        Some(',' | '{') if error.is_eof() => r#"'"' expected"#,
        _ if error.is_eof() => ", or } expected while parsing object/hash",
        _ => "malformed JSON string, neither tag, array, object, number, string or atom",
    };
    format!(
        "{expected}, at character offset {place} (before \"{before}\") at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 917."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolon_splits_and_second_equals_sign_cuts() {
        let params = decode_form("net0=name=eth0&tags=a;b&x=%3D+y");
        assert_eq!(params["net0"], "name");
        assert_eq!(params["tags"], "a");
        assert_eq!(params["b"], "");
        assert_eq!(params["x"], "= y");
    }

    #[test]
    fn repeated_key_becomes_a_list() {
        assert!(decode_form("m=1&m=2")["m"].is_array());
    }
}
