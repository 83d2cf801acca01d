//! Whether two answers are the same to a client: status, words, shape of the body, what became of a task.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::exchange::Exchange;

/// What the simulator said.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) body: String,
}

/// The first difference, or none.
pub(crate) fn difference(recorded: &Exchange, got: &Got) -> Option<String> {
    let (theirs, ours) = (&recorded.reason, &got.reason);
    if recorded.status != got.status {
        return Some(format!(
            "{} {theirs}, here {} {ours} {}",
            recorded.status, got.status, got.body
        ));
    }
    if theirs.trim_end() != ours.trim_end() {
        return Some(format!("{theirs:?}, here {ours:?}"));
    }
    let theirs = recorded.json();
    let ours: Value = serde_json::from_str(&got.body).unwrap_or_default();
    if recorded.status != 200 {
        return (theirs != ours).then(|| format!("{theirs}, here {ours}"));
    }
    ends(&theirs, &ours).or_else(|| shapes("", &theirs, &ours))
}

/// Of a task its exit status and the last line of its log; of an answer with a UPID, what kind of task it is.
fn ends(theirs: &Value, ours: &Value) -> Option<String> {
    let exit = |body: &Value| body["data"]["exitstatus"].as_str().map(str::to_owned);
    let last = |body: &Value| {
        let line = body["data"].as_array()?.last()?["t"].as_str()?.to_owned();
        line.starts_with("TASK ").then_some(line)
    };
    let kind = |body: &Value| {
        let upid = body["data"]
            .as_str()
            .filter(|text| text.starts_with("UPID:"))?;
        let parts: Vec<&str> = upid.split(':').collect();
        Some(format!(
            "{} {} {} {}",
            parts[1], parts[5], parts[6], parts[7]
        ))
    };
    let pairs = [
        (exit(theirs), exit(ours)),
        (last(theirs), last(ours)),
        (kind(theirs), kind(ours)),
    ];
    // What the real machine left open, such as the end of a log longer than a page, is open here too.
    let mut unlike = pairs
        .into_iter()
        .filter(|(theirs, ours)| theirs != ours && theirs.is_some());
    unlike
        .next()
        .map(|(theirs, ours)| format!("{theirs:?}, here {ours:?}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Keys and types, all the way down. Rows of a list are taken together: a key of one is a key of the list.
fn shapes(place: &str, theirs: &Value, ours: &Value) -> Option<String> {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let missing: Vec<_> = theirs.keys().filter(|k| !ours.contains_key(*k)).collect();
            let extra: Vec<_> = ours.keys().filter(|k| !theirs.contains_key(*k)).collect();
            if !missing.is_empty() || !extra.is_empty() {
                return Some(format!("{place}: without {missing:?}, with {extra:?}"));
            }
            let mut pairs = theirs.iter().map(|(key, value)| (key, value, &ours[key]));
            pairs.find_map(|(key, a, b)| shapes(&format!("{place}/{key}"), a, b))
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if theirs.is_empty() != ours.is_empty() {
                return Some(format!(
                    "{place}: {} rows, here {}",
                    theirs.len(),
                    ours.len()
                ));
            }
            let (theirs, ours) = (together(theirs), together(ours));
            shapes(&format!("{place}[]"), &theirs, &ours)
        }
        (theirs, ours) if kind(theirs) == kind(ours) => None,
        (theirs, ours) => Some(format!(
            "{place}: {} {theirs}, here {} {ours}",
            kind(theirs),
            kind(ours)
        )),
    }
}

/// All rows of a list as one: of objects by their `type`, so that unlike rows stay apart.
fn together(rows: &[Value]) -> Value {
    let mut kinds: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
    for row in rows {
        let Value::Object(fields) = row else {
            return rows[0].clone();
        };
        // A task's type is what it does, not what its row looks like.
        let name = if fields.contains_key("upid") {
            ""
        } else {
            fields.get("type").and_then(Value::as_str).unwrap_or("")
        };
        let all = kinds.entry(name.to_owned()).or_default();
        for (key, value) in fields {
            let known = all.entry(key.clone()).or_insert(Value::Null);
            if known.is_null() {
                *known = value.clone();
            }
        }
    }
    kinds
        .into_iter()
        .map(|(name, fields)| (name, Value::Object(fields)))
        .collect()
}
