//! Whether clients of the contract as it was released (`openapi/released.json`) still work with the one of today. What adds to it is
//! fine; what takes away, narrows or renames is not, and is done on purpose only: by a new version and a new copy of the file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

/// The specification, with a way from references to what they mean.
struct Spec<'a>(&'a Value);

impl<'a> Spec<'a> {
    fn follow(&self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(at) => self.follow(self.0.pointer(&at[1..]).unwrap()),
            // A reference with a description of its own.
            None => match value["allOf"].as_array().map(Vec::as_slice) {
                Some([only]) => self.follow(only),
                _ => value,
            },
        }
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .map(|all| all.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

fn words(value: &Value) -> BTreeSet<&str> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str).collect()
}

struct Comparison<'a> {
    old: Spec<'a>,
    new: Spec<'a>,
    broken: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn of(old: &'a Value, new: &'a Value) -> Vec<String> {
        let mut comparison = Self {
            old: Spec(old),
            new: Spec(new),
            broken: Vec::new(),
        };
        for (path, methods) in old["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let place = format!("{method} {path}");
                match &new["paths"][path][method] {
                    Value::Null => comparison.breaks(&place, "the operation is gone"),
                    now => comparison.operation(&place, operation, now),
                }
            }
        }
        comparison.broken
    }

    fn breaks(&mut self, place: &str, what: &str) {
        self.broken.push(format!("{place}: {what}"));
    }

    fn operation(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.breaks(place, "the id is another one");
        }
        let open = |operation: &Value| {
            let ways = operation["security"].as_array();
            ways.is_none_or(|all| all.contains(&json!({})))
        };
        if open(old) && !open(new) {
            self.breaks(place, "a login is needed now");
        }
        self.parameters(place, old, new);
        let (before, now) = (&old["requestBody"], &new["requestBody"]);
        if before.is_null() && now["required"] == true {
            self.breaks(place, "a body is needed now");
        }
        self.content(&format!("{place} body"), before, now, true);
        let good = |status: &&str| status.starts_with('2') || status.starts_with('3');
        let (was, is) = (&old["responses"], &new["responses"]);
        for status in keys(is)
            .difference(&keys(was))
            .filter(|status| good(status))
        {
            self.breaks(place, &format!("{status} is a new success"));
        }
        for status in keys(was) {
            let place = format!("{place} {status}");
            if is[status].is_null() {
                self.breaks(&place, "the answer is gone");
                continue;
            }
            let (was, is) = (self.old.follow(&was[status]), self.new.follow(&is[status]));
            for header in keys(&was["headers"]).difference(&keys(&is["headers"])) {
                self.breaks(&place, &format!("the header {header} is gone"));
            }
            self.content(&place, was, is, false);
        }
    }

    fn parameters(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let all = |operation: &'a Value| operation["parameters"].as_array().into_iter().flatten();
        let same = |a: &Value, b: &Value| a["name"] == b["name"] && a["in"] == b["in"];
        for before in all(old) {
            let place = format!("{place} {}", before["name"]);
            match all(new).find(|now| same(before, now)) {
                None => self.breaks(&place, "the parameter is gone"),
                Some(now) => {
                    if now["required"] == true && before["required"] != true {
                        self.breaks(&place, "it is required now");
                    }
                    self.schema(&place, &before["schema"], &now["schema"], true);
                }
            }
        }
        for now in all(new).filter(|now| now["required"] == true) {
            if !all(old).any(|before| same(before, now)) {
                self.breaks(
                    place,
                    &format!("the parameter {} is required now", now["name"]),
                );
            }
        }
    }

    fn content(&mut self, place: &str, old: &'a Value, new: &'a Value, request: bool) {
        for kind in keys(&old["content"]) {
            let (before, now) = (&old["content"][kind], &new["content"][kind]);
            match now {
                Value::Null => self.breaks(place, &format!("{kind} is gone")),
                now => self.schema(
                    &format!("{place} {kind}"),
                    &before["schema"],
                    &now["schema"],
                    request,
                ),
            }
        }
    }

    fn schema(&mut self, place: &str, old: &'a Value, new: &'a Value, request: bool) {
        let (old, new) = (self.old.follow(old), self.new.follow(new));
        for what in ["type", "format", "pattern", "nullable"] {
            let wider = what == "nullable" && request && new[what] == true;
            if old[what] != new[what] && !wider {
                self.breaks(
                    place,
                    &format!("{what} was {}, is {}", old[what], new[what]),
                );
            }
        }
        for what in ["maxLength", "minLength", "maximum", "minimum", "maxItems"] {
            if request && !new[what].is_null() && old[what] != new[what] {
                self.breaks(
                    place,
                    &format!("{what} was {}, is {}", old[what], new[what]),
                );
            }
        }
        let (was, is) = (words(&old["enum"]), words(&new["enum"]));
        // A client sends words that were allowed, and understands those it knows.
        let lost = match request {
            true => was.difference(&is),
            false => is.difference(&was),
        };
        for word in lost {
            self.breaks(place, &format!("the word `{word}`"));
        }
        let (was, is) = (words(&old["required"]), words(&new["required"]));
        let harder = match request {
            true => is.difference(&was),
            false => was.difference(&is),
        };
        for field in harder {
            let now = if request { "required" } else { "optional" };
            self.breaks(place, &format!("{field} is {now} now"));
        }
        for field in keys(&old["properties"]) {
            let place = format!("{place}.{field}");
            match &new["properties"][field] {
                Value::Null => self.breaks(&place, "the field is gone"),
                now => self.schema(&place, &old["properties"][field], now, request),
            }
        }
        if !old["items"].is_null() {
            self.schema(&format!("{place}[]"), &old["items"], &new["items"], request);
        }
        let kinds = |schema: &'a Value| schema["anyOf"].as_array().into_iter().flatten();
        for (before, now) in kinds(old).zip(kinds(new)) {
            self.schema(place, before, now, request);
        }
        if kinds(old).count() != kinds(new).count() {
            self.breaks(place, "there are other kinds of it");
        }
    }
}

fn released() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/released.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn clients_of_the_released_contract_still_work() {
    let now: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let broken = Comparison::of(&released(), &now);
    assert!(
        broken.is_empty(),
        "clients would break:\n{}\nIf that is meant: a new version, and a new copy of openapi.json as released.json.",
        broken.join("\n")
    );
}

#[test]
fn what_breaks_clients_is_noticed_and_what_adds_is_not() {
    let old = released();
    let container = "/components/schemas/Container";
    let wish = "/components/schemas/ContainerRequest";
    let create = "/paths/~1containers/post";
    let list = "/paths/~1containers/get";
    let remove = |at: &str, what: &str| {
        let mut spec = old.clone();
        let object = spec.pointer_mut(at).unwrap().as_object_mut().unwrap();
        assert!(object.remove(what).is_some(), "{at} has no {what}");
        spec
    };
    let set = |at: &str, what: &str, value: Value| {
        let mut spec = old.clone();
        spec.pointer_mut(at).unwrap()[what] = value;
        spec
    };
    for (what, new) in [
        ("an operation", remove("/paths/~1quota", "get")),
        (
            "a field of an answer",
            remove(&format!("{container}/properties"), "ipv4Address"),
        ),
        (
            "a field of a request",
            remove(&format!("{wish}/properties"), "memory"),
        ),
        (
            "a kind of body",
            remove(
                &format!("{create}/requestBody/content"),
                "application/x-www-form-urlencoded",
            ),
        ),
        ("an answer", remove(&format!("{create}/responses"), "202")),
        (
            "a header",
            remove(&format!("{create}/responses/202/headers"), "Location"),
        ),
        ("a parameter", set(list, "parameters", json!([]))),
        ("an id", set(list, "operationId", json!("list"))),
        (
            "another type",
            set(
                &format!("{container}/properties/id"),
                "type",
                json!("string"),
            ),
        ),
        (
            "a field that need not be there any more",
            set(container, "required", json!(["id"])),
        ),
        (
            "a field that is required now",
            set(
                wish,
                "required",
                json!(["hostname", "osRelease", "httpPort", "memory"]),
            ),
        ),
        (
            "a word that may be answered",
            set(
                "/components/schemas/JobState",
                "enum",
                json!([
                    "pending",
                    "running",
                    "success",
                    "failure",
                    "cancelled",
                    "lost"
                ]),
            ),
        ),
        (
            "a limit",
            set(
                &format!("{wish}/properties/hostname"),
                "maxLength",
                json!(10),
            ),
        ),
        (
            "a new success",
            set(
                &format!("{list}/responses"),
                "206",
                json!({"description": "A part"}),
            ),
        ),
        (
            "a login",
            set(
                "/paths/~1register/post",
                "security",
                json!([{"session": []}]),
            ),
        ),
    ] {
        assert!(!Comparison::of(&old, &new).is_empty(), "{what}");
    }
    for (what, new) in [
        ("the same", old.clone()),
        (
            "a new operation",
            set(
                "/paths",
                "/new",
                json!({"get": {"operationId": "new_find", "responses": {}}}),
            ),
        ),
        (
            "a new field of an answer",
            set(
                &format!("{container}/properties"),
                "colour",
                json!({"type": "string"}),
            ),
        ),
        (
            "a new field of a request",
            set(
                &format!("{wish}/properties"),
                "colour",
                json!({"type": "string"}),
            ),
        ),
        ("other words", set(list, "summary", json!("All containers"))),
    ] {
        let broken = Comparison::of(&old, &new);
        assert!(broken.is_empty(), "{what}: {broken:?}");
    }
}
