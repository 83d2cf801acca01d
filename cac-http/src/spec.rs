//! The contract as a document: what the operations say of themselves, completed with what no operation says alone (which errors it may
//! answer with, examples), and a second form for generators of clients. Both stand in `openapi/`.

use std::sync::LazyLock;

use cac_core::token::Scope;
use cac_core::{account_request, container};
use poem::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api;

mod client;

pub(crate) use client::for_generators;

/// One example for each schema, each parameter and each text.
static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("spec/examples.json")).expect("a test reads it")
});

/// Statuses with what they mean, whatever the operation.
const ERRORS: [(&str, &str, &str); 12] = [
    (
        "400",
        "BadRequest",
        "Bad input; `errors` has a message for each field",
    ),
    (
        "401",
        "Unauthorized",
        "Nobody is signed in, or the credentials were refused",
    ),
    (
        "403",
        "Forbidden",
        "Not allowed, or sent by a page of another site",
    ),
    (
        "404",
        "NotFound",
        "There is no such thing, or it is somebody else's",
    ),
    ("408", "RequestTimeout", "The body came too slowly"),
    (
        "409",
        "Conflict",
        "A name, port or address is already taken, or the state does not allow it",
    ),
    ("413", "PayloadTooLarge", "The body is too large"),
    (
        "415",
        "UnsupportedMediaType",
        "The body is neither JSON nor a form",
    ),
    (
        "421",
        "MisdirectedRequest",
        "This server does not answer for that host name",
    ),
    (
        "429",
        "TooManyRequests",
        "Too many requests; `Retry-After` says when to go on",
    ),
    (
        "500",
        "InternalServerError",
        "Proxmox VE refused, or something went wrong here",
    ),
    (
        "503",
        "ServiceUnavailable",
        "Proxmox VE or the database cannot be reached now",
    ),
];

/// Requests of the original's own routes: scripts may send more than they say.
const LENIENT: [&str; 4] = [
    "ContainerRequest",
    "Credentials",
    "NewJob",
    "RegisterRequest",
];

/// The whole contract.
pub(crate) fn contract() -> Value {
    let raw = api::service().spec();
    let mut spec: Value = serde_json::from_str(&raw).expect("the framework writes JSON");
    spec["info"]["license"] = json!({"name": "MIT"});
    spec["servers"] = json!([{"url": "/", "description": "The portal that served this document"}]);
    for (path, method, operation) in operations(&mut spec) {
        plain_media_types(operation);
        written_as_usual(operation);
        errors(path, method, operation);
        parameters(operation);
    }
    let responses = ERRORS
        .iter()
        .map(|(status, name, text)| ((*name).to_owned(), problem(status, text)))
        .chain([(
            "LoginPage".to_owned(),
            json!({
                "description": "For browsers that are not signed in: to the login, and back from there",
                "headers": {"Location": header("string")},
            }),
        )]);
    spec["components"]["responses"] = Value::Object(responses.collect());
    schemas(&mut spec["components"]["schemas"]);
    requests(&mut spec);
    words(&mut spec);
    for (_, _, operation) in operations(&mut spec) {
        let id = operation["operationId"].as_str().map(ToOwned::to_owned);
        if let Some(body) = operation.get_mut("requestBody") {
            content(body, None);
        }
        for response in each(operation, "responses") {
            content(response, id.as_deref());
        }
    }
    spec
}

/// The values of the object under this name; none where there is none.
fn each<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    let object = value.get_mut(name).and_then(Value::as_object_mut);
    object.into_iter().flat_map(Map::values_mut)
}

fn operations(spec: &mut Value) -> impl Iterator<Item = (&str, &str, &mut Value)> {
    let paths = spec["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object_mut().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Generators and `Accept` headers want `application/json`; what is sent says the character set, too.
fn plain_media_types(operation: &mut Value) {
    let plain = |body: &mut Value| {
        if let Some(content) = body.get_mut("content").and_then(Value::as_object_mut) {
            let old = std::mem::take(content);
            let name = |kind: String| kind.split(';').next().unwrap_or_default().to_owned();
            content.extend(old.into_iter().map(|(kind, media)| (name(kind), media)));
        }
    };
    operation.get_mut("requestBody").map(plain);
    each(operation, "responses").for_each(plain);
}

/// The framework writes the names of headers in capitals.
fn written_as_usual(operation: &mut Value) {
    for response in each(operation, "responses") {
        for media in each(response, "content") {
            // It is text, and generators would take it for a file of bytes.
            if media["schema"]["format"] == "binary" {
                media["schema"] = json!({"type": "string"});
            }
        }
        if let Some(response) = response.as_object_mut() {
            response.retain(|_, part| part.as_object().is_none_or(|part| !part.is_empty()));
        }
        for header in each(response, "headers") {
            header.as_object_mut().map(|one| one.remove("deprecated"));
        }
        let Some(headers) = response.get_mut("headers").and_then(Value::as_object_mut) else {
            continue;
        };
        let usual = |name: String| match name.as_str() {
            "ETAG" => "ETag".to_owned(),
            _ => name
                .split('-')
                .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
                .collect::<Vec<_>>()
                .join("-"),
        };
        let old = std::mem::take(headers);
        headers.extend(old.into_iter().map(|(name, header)| (usual(name), header)));
    }
}

/// Leaves the errors that this operation can answer with.
fn errors(path: &str, method: &str, operation: &mut Value) {
    let reads = method == "get";
    let body = operation["requestBody"].is_object();
    let id = operation["operationId"].as_str().unwrap_or_default();
    // Its 404 and 503 are pages of its own, not problems.
    let own = id == "unavailable_find";
    let asks_nobody = operation["security"].is_null();
    let takes = body || operation["parameters"].is_array();
    let possible = |status: &str| match status {
        "400" => takes || !reads || id == "mail_test",
        "401" => !asks_nobody || body,
        "403" => !asks_nobody || !reads,
        "404" => path.contains('{') || id == "mail_test",
        // While it is being made there is nothing to look at.
        "409" => !reads || matches!(id, "snapshot_list" | "container_usage"),
        "408" | "413" => !reads,
        "415" => body,
        _ => true,
    };
    let wanted: Vec<_> = ERRORS
        .iter()
        .filter(|(status, ..)| possible(status))
        .collect();
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    let page = |status: &str| own && matches!(status, "404" | "503");
    responses.retain(|status, _| page(status) || status < &"400".to_owned());
    if !asks_nobody && !responses.contains_key("303") {
        let to_login = json!({"$ref": "#/components/responses/LoginPage"});
        responses.insert("303".to_owned(), to_login);
    }
    for (status, name, _) in wanted {
        let answer = json!({"$ref": format!("#/components/responses/{name}")});
        if !(own && responses.contains_key(*status)) {
            responses.insert((*status).to_owned(), answer);
        }
    }
}

fn problem(status: &str, text: &str) -> Value {
    let number: u16 = status.parse().unwrap_or_default();
    let mut example = EXAMPLES["schemas"]["Problem"].clone();
    if number != 400 {
        let title = StatusCode::from_u16(number).ok();
        let title = title.and_then(|status| status.canonical_reason());
        example = json!({
            "title": title, "status": number, "detail": format!("{text}."), "requestId": example["requestId"],
        });
    }
    let mut answer = json!({
        "description": text,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example},
            "text/html": {"schema": {"type": "string"}},
        },
    });
    let limits = [
        "RateLimit-Limit",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "Retry-After",
    ];
    match status {
        "401" => answer["headers"] = json!({"WWW-Authenticate": header("string")}),
        "429" => {
            answer["headers"] = limits
                .map(|name| (name, header("integer")))
                .into_iter()
                .collect()
        }
        "503" => answer["headers"] = json!({"Retry-After": header("integer")}),
        _ => {}
    }
    answer
}

fn header(ty: &str) -> Value {
    json!({"schema": {"type": ty}})
}

fn parameters(operation: &mut Value) {
    let parameters = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        if parameter["schema"]["format"] == "uint64" {
            parameter["schema"]["minimum"] = json!(0);
        }
        let example = &EXAMPLES["parameters"][&name];
        parameter["example"] = match parameter["schema"]["type"] == "string" && !example.is_string()
        {
            true => json!(example.to_string()),
            false => example.clone(),
        };
        if let Some(parameter) = parameter.as_object_mut() {
            parameter.remove("explode");
            parameter.retain(|key, value| key != "deprecated" || value == true);
        }
    }
}

/// Examples, and which fields of a request are required: those whose description begins so. The operations themselves take every field as
/// optional, to tell all that is missing at once.
fn schemas(schemas: &mut Value) {
    let schemas = schemas.as_object_mut().into_iter().flatten();
    for (name, schema) in schemas {
        let example = EXAMPLES["schemas"][name].clone();
        if !example.is_null() {
            schema["example"] = example;
        }
        for property in each(schema, "properties") {
            described(property);
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        let required: Vec<Value> = properties
            .filter(|(_, property)| {
                let text = property["description"].as_str().unwrap_or_default();
                text.starts_with("Required.")
            })
            .map(|(name, _)| json!(name))
            .collect();
        if !required.is_empty() {
            schema["required"] = Value::Array(required);
        }
    }
}

/// Which words a request may use; answers may get further ones.
fn words(spec: &mut Value) {
    let scopes: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
    let schemas = &mut spec["components"]["schemas"];
    schemas["TokenRequest"]["properties"]["scopes"]["items"]["enum"] = json!(scopes);
    schemas["ServiceRequest"]["properties"]["type"]["enum"] = json!(["http", "tcp", "udp", null]);
    for (at, name, words) in [
        (
            "/containers/{id}/usage",
            "timeframe",
            json!(container::TIMEFRAMES),
        ),
        (
            "/account-requests",
            "status",
            json!(account_request::STATUSES),
        ),
    ] {
        let parameters = spec["paths"][at]["get"]["parameters"].as_array_mut();
        for parameter in parameters.into_iter().flatten() {
            if parameter["name"] == name {
                parameter["schema"]["enum"] = words.clone();
            }
        }
    }
}

/// In a request `null` is the same as a field that is left out, and a field that there is not is a mistake.
fn requests(spec: &mut Value) {
    let bodies: Vec<String> = operations(spec)
        .filter_map(|(_, _, operation)| {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            Some(schema["$ref"].as_str()?.rsplit('/').next()?.to_owned())
        })
        .collect();
    for name in bodies {
        let schema = &mut spec["components"]["schemas"][&name];
        if !LENIENT.contains(&&*name) {
            schema["additionalProperties"] = json!(false);
        }
        let required = schema["required"].clone();
        let required = |name: &str| {
            let names = required.as_array();
            names.is_some_and(|names| names.iter().any(|one| one == name))
        };
        let properties = schema["properties"].as_object_mut().into_iter().flatten();
        for (_, property) in properties.filter(|(name, _)| !required(name)) {
            property["nullable"] = json!(true);
        }
    }
}

/// A reference with a description, in the form that generators understand.
fn described(property: &mut Value) {
    let parts = property.get("allOf").and_then(Value::as_array);
    if let Some([reference, rest]) = parts.map(Vec::as_slice) {
        *property = json!({"allOf": [reference], "description": rest["description"]});
    }
}

/// Gives the bodies of a request or an answer their examples.
fn content(body: &mut Value, operation: Option<&str>) {
    for media in each(body, "content") {
        example(media, operation);
    }
}

/// Gives a body the example of its schema, or of its operation.
fn example(media: &mut Value, operation: Option<&str>) {
    let text = operation.map_or(Value::Null, |id| EXAMPLES["texts"][id].clone());
    let named = |schema: &Value| {
        let name = schema["$ref"].as_str()?.rsplit('/').next()?;
        Some(EXAMPLES["schemas"][name].clone())
    };
    let schema = &media["schema"];
    let found = match text {
        Value::Null => named(schema).or_else(|| Some(json!([named(&schema["items"])?]))),
        text => Some(text),
    };
    if let Some(found) = found.filter(|found| !found.is_null()) {
        media["example"] = found;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Deserialize;
    use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

    use super::*;

    /// Any JSON in which no object has a key twice.
    struct Once;

    impl<'de> Deserialize<'de> for Once {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = Once;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("JSON")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                    let mut seen = BTreeSet::new();
                    while let Some((key, Once)) = map.next_entry::<String, Once>()? {
                        if !seen.insert(key.clone()) {
                            let text = format!("`{key}` stands twice");
                            return Err(serde::de::Error::custom(text));
                        }
                    }
                    Ok(Once)
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Once, A::Error> {
                    while all.next_element::<Once>()?.is_some() {}
                    Ok(Once)
                }

                fn visit_str<E>(self, _: &str) -> Result<Once, E> {
                    Ok(Once)
                }

                fn visit_bool<E>(self, _: bool) -> Result<Once, E> {
                    Ok(Once)
                }

                fn visit_u64<E>(self, _: u64) -> Result<Once, E> {
                    Ok(Once)
                }

                fn visit_i64<E>(self, _: i64) -> Result<Once, E> {
                    Ok(Once)
                }

                fn visit_f64<E>(self, _: f64) -> Result<Once, E> {
                    Ok(Once)
                }

                fn visit_unit<E>(self) -> Result<Once, E> {
                    Ok(Once)
                }
            }
            deserializer.deserialize_any(Reader)
        }
    }

    /// The framework wrote `200` of one operation twice, and readers kept one of them.
    #[test]
    fn no_answer_stands_twice() {
        let _: Once = serde_json::from_str(&api::service().spec()).expect("no key twice");
        assert!(serde_json::from_str::<Once>(r#"{"a": 1, "a": [null, 1.5]}"#).is_err());
    }
}
