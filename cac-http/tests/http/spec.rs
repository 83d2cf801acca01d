//! The OpenAPI document: the files, and that it says what clients need.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

pub(crate) fn operations(spec: &Value) -> Vec<(Method, String, &Value)> {
    let mut all = Vec::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push((
                method.to_uppercase().parse().unwrap(),
                path.clone(),
                operation,
            ));
        }
    }
    all
}

/// `UPDATE_OPENAPI=1 cargo test -p cac-http --test http spec` writes the file anew.
#[test]
fn the_files_are_what_the_code_says() {
    for (name, now) in [
        ("openapi.json", cac_http::spec()),
        ("client.json", cac_http::client_spec()),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../openapi")
            .join(name);
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            kept == now,
            "{name}: run `UPDATE_OPENAPI=1 cargo test -p cac-http --test http spec` and look at the difference"
        );
    }
}

#[test]
fn every_operation_is_named_and_explained() {
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&spec) {
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("{method} {path} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(operation["summary"].is_string(), "{id} has no summary");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert_ne!(response["description"], "", "{id} {status}");
        }
        if path != "/" {
            assert!(operation["responses"]["429"].is_object(), "{id}");
        }
    }
    for id in [
        "container_create",
        "container_list",
        "container_find",
        "container_delete",
        "job_find",
        "job_stream",
        "login_create",
        "nginx_find",
    ] {
        assert!(ids.contains(id), "{id}");
    }
}

/// Generators, Swagger UI and readers: every body and every parameter has an example that is what its type says.
#[test]
fn every_body_and_parameter_has_an_example_of_its_type() {
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let fits = |place: &str, schema: &Value, example: &Value| {
        assert!(!example.is_null(), "{place} has no example");
        let mut schema = schema.clone();
        schema["components"] = spec["components"].clone();
        let validator = jsonschema::draft4::options().build(&schema).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(example)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{place}: {errors:?}");
    };
    let bodies = |place: &str, body: &Value| {
        for (kind, media) in body["content"].as_object().into_iter().flatten() {
            if kind == "text/event-stream" {
                assert!(media["example"].is_string(), "{place}");
            } else if kind != "text/html" {
                fits(
                    &format!("{place} {kind}"),
                    &media["schema"],
                    &media["example"],
                );
            }
        }
    };
    for (method, path, operation) in operations(&spec) {
        let place = format!("{method} {path}");
        bodies(&place, &operation["requestBody"]);
        for (status, response) in operation["responses"].as_object().unwrap() {
            bodies(&format!("{place} {status}"), response);
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = format!("{place} {}", parameter["name"]);
            fits(&place, &parameter["schema"], &parameter["example"]);
        }
    }
    for (name, response) in spec["components"]["responses"].as_object().unwrap() {
        bodies(name, response);
    }
    for (name, schema) in spec["components"]["schemas"].as_object().unwrap() {
        fits(name, schema, &schema["example"]);
    }
    let examples: Value =
        serde_json::from_str(include_str!("../../src/spec/examples.json")).unwrap();
    for name in examples["schemas"].as_object().unwrap().keys() {
        let schema = &spec["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is an example of nothing");
    }
}
