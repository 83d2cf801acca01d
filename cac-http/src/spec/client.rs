//! The contract for generators of clients. Many of them take one success type for each operation and JSON only: here every operation has one, pages
//! and event streams are left out, and what a form could send is JSON.

use serde_json::{Map, Value, json};

use super::{each, operations};

/// The derived document: the same operations and types, as far as a client uses them.
pub(crate) fn for_generators() -> Value {
    let mut spec = super::contract();
    let about = "Create-a-Container, for generators of clients: JSON only, and one type of success for each operation.";
    spec["info"]["description"] = json!(about);
    let mut answers = Map::new();
    let schemas = spec["components"]["schemas"].clone();
    for (_, _, operation) in operations(&mut spec) {
        if let Some(body) = operation.get_mut("requestBody") {
            let json = body["content"]["application/json"].take();
            body["content"] = json!({"application/json": json});
        }
        let ways = operation["security"].as_array();
        if ways.is_some_and(|ways| ways.contains(&json!({}))) {
            // Generators take a login that may be for one that must be.
            operation.as_object_mut().map(|one| one.remove("security"));
        }
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        one_success(&id, operation, &schemas, &mut answers);
    }
    for response in each(&mut spec["components"], "responses") {
        // Generators take nothing else for JSON.
        if let Some(problem) = response["content"]["application/problem+json"]
            .take()
            .as_object()
        {
            response["content"] = json!({"application/json": problem});
        }
    }
    let responses = spec["components"]["responses"].as_object_mut();
    responses.map(|all| all.remove("LoginPage"));
    if let Some(paths) = spec["paths"].as_object_mut() {
        for methods in paths.values_mut().filter_map(Value::as_object_mut) {
            methods.retain(|_, operation| operation["responses"].as_object().is_some_and(succeeds));
        }
        paths.retain(|_, methods| methods.as_object().is_some_and(|all| !all.is_empty()));
    }
    if let Some(schemas) = spec["components"]["schemas"].as_object_mut() {
        schemas.extend(answers);
    }
    // To leave a field out is enough for a client, and simpler types are nicer ones.
    for schema in each(&mut spec["components"], "schemas") {
        for property in each(schema, "properties") {
            property.as_object_mut().map(|one| one.remove("nullable"));
            if let Some(words) = property.get_mut("enum").and_then(Value::as_array_mut) {
                words.retain(|word| !word.is_null());
            }
        }
    }
    unused(&mut spec);
    spec
}

fn succeeds(responses: &Map<String, Value>) -> bool {
    responses.keys().any(|status| status.starts_with('2'))
}

/// Leaves JSON and plain text; several types of success become one, whose fields are required where all have them.
fn one_success(id: &str, operation: &mut Value, schemas: &Value, answers: &mut Map<String, Value>) {
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    responses.retain(|status, response| {
        let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) else {
            return status == "304" || !status.starts_with('3');
        };
        if content.contains_key("application/json") {
            content.retain(|kind, _| kind == "application/json");
        }
        let known = ["application/json", "text/plain", "text/csv"];
        content.retain(|kind, _| known.contains(&kind.as_str()));
        !content.is_empty()
    });
    let good = |status: &str| status.starts_with('2');
    let successes: Vec<Value> = responses
        .iter()
        .filter(|(status, _)| good(status))
        .map(|(_, response)| response["content"]["application/json"]["schema"].clone())
        .collect();
    let mut kinds: Vec<&Value> = successes
        .iter()
        .flat_map(|schema| match named(schema, schemas)["anyOf"].as_array() {
            Some(all) => all.iter().collect(),
            None => vec![schema],
        })
        .collect();
    kinds.dedup();
    if kinds.len() < 2 {
        return;
    }
    let name: String = id
        .split('_')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .chain(["Answer".to_owned()])
        .collect();
    answers.insert(name.clone(), together(&kinds, schemas));
    for (_, response) in responses.iter_mut().filter(|(status, _)| good(status)) {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        response["content"]["application/json"]["schema"] = schema;
    }
}

/// The type that a reference leads to.
fn named<'a>(reference: &Value, schemas: &'a Value) -> &'a Value {
    let at = reference["$ref"].as_str();
    &schemas[at.and_then(|at| at.rsplit('/').next()).unwrap_or_default()]
}

fn together(kinds: &[&Value], schemas: &Value) -> Value {
    let all: Vec<&Value> = kinds.iter().map(|kind| named(kind, schemas)).collect();
    let mut properties = Map::new();
    for (name, property) in all
        .iter()
        .filter_map(|schema| schema["properties"].as_object())
        .flatten()
    {
        properties.entry(name.clone()).or_insert(property.clone());
    }
    let required = properties.keys().filter(|name| {
        all.iter().all(|schema| {
            let required = schema["required"].as_array();
            required.is_some_and(|names| names.iter().any(|one| one == *name))
        })
    });
    let required: Vec<&String> = required.collect();
    json!({
        "type": "object",
        "description": "One of several answers: the fields that only some have are optional.",
        "required": required,
        "properties": properties,
        "example": all.last().map(|schema| &schema["example"]),
    })
}

/// Removes the types that nothing refers to any more.
fn unused(spec: &mut Value) {
    loop {
        let text = spec.to_string();
        let Some(schemas) = spec["components"]["schemas"].as_object_mut() else {
            return;
        };
        let before = schemas.len();
        schemas.retain(|name, _| text.contains(&format!("#/components/schemas/{name}\"")));
        if schemas.len() == before {
            return;
        }
    }
}
