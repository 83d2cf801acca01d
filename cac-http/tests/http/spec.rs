//! The OpenAPI document, and what it says about rights, tried on every operation.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, expect};

fn operations(spec: &Value) -> Vec<(Method, String, &Value)> {
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

/// Every operation that needs a session refuses whoever has none, a wrong one, or one that is not theirs to use.
#[tokio::test]
async fn nobody_does_anything_without_rights() {
    let lab = Lab::idle(&[
        ("NGINX_CONF_ALLOW", "198.51.100.0/24"),
        ("REGISTRATION_ALLOW", "198.51.100.0/24"),
    ])
    .await;
    let spec = expect(lab.get("/openapi.json", "").send().await.unwrap(), 200).await;
    let open = [
        "home_find",
        "login_page",
        "login_create",
        "login_delete",
        "health_find",
        "readiness_find",
        "account_request_page",
        "account_request_create",
        "account_page",
        "account_create",
        "mail_test",
    ];
    let mut tried = 0;
    for (method, path, operation) in operations(&spec) {
        let id = operation["operationId"].as_str().unwrap();
        if open.contains(&id) {
            continue;
        }
        assert!(
            operation["security"].is_array(),
            "{id} says nothing about rights"
        );
        let path = path.replace("{id}", "1").replace("{jobId}", "1");
        for session in ["", "cac=", "cac=0000", "__Host-cac=1"] {
            let mut request = lab.ask(method.clone(), &path, session);
            if operation["requestBody"].is_object() {
                request = request.json(&json!({}));
            }
            expect(request.send().await.unwrap(), 401).await;
        }
        tried += 1;
    }
    assert!(tried >= 14, "only {tried} operations");
}

/// A token without the scope gets nothing, whatever the operation; one operation is for several scopes and looks itself.
#[tokio::test]
async fn a_token_without_the_scope_does_nothing() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let token = lab.token(&admin, &["containers:register"]).await;
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let mut tried = 0;
    for (method, path, operation) in operations(&spec) {
        if !operation["security"].is_array() || operation["operationId"] == "container_create" {
            continue;
        }
        let path = path.replace("{id}", "1").replace("{jobId}", "1");
        let mut request = lab.ask(method.clone(), &path, &token);
        if operation["requestBody"].is_object() {
            request = request.json(&json!({}));
        }
        let refused = expect(request.send().await.unwrap(), 403).await;
        assert!(
            refused["detail"]
                .as_str()
                .unwrap()
                .contains("has not the scope"),
            "{method} {path}: {refused}"
        );
        tried += 1;
    }
    assert!(tried >= 30, "only {tried} operations");
}
