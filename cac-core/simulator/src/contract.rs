//! The call list of Proxmox VE 8.4 (paths, parameters, rights) and the check of parameters against it.
//! Not the calls themselves (see `api`) and not the named value formats (see `format`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::ParamErrors;
use crate::format;
use crate::params::Params;

/// What is known about one parameter or one key of a property string.
#[derive(Debug, Deserialize)]
pub(crate) struct Property {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    optional: u8,
    minimum: Option<f64>,
    maximum: Option<f64>,
    #[serde(rename = "minLength")]
    min_length: Option<usize>,
    #[serde(rename = "maxLength")]
    max_length: Option<usize>,
    #[serde(rename = "enum")]
    choices: Option<Vec<String>>,
    #[serde(default)]
    default_key: u8,
    requires: Option<String>,
    pattern: Option<String>,
    format: Option<String>,
    /// Keys of a property string.
    pub(crate) keys: Option<BTreeMap<String, Property>>,
}

/// One method of one path.
#[derive(Debug, Deserialize)]
pub(crate) struct Endpoint {
    /// The permission expression: `all`, `world`, `root` or the nested list that Proxmox VE publishes.
    pub(crate) check: Value,
    #[serde(default)]
    pub(crate) node: u8,
    #[serde(default)]
    pub(crate) no_token: u8,
    pub(crate) params: BTreeMap<String, Property>,
}

struct Route {
    template: String,
    segments: Vec<String>,
    methods: BTreeMap<String, Endpoint>,
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let paths: BTreeMap<String, BTreeMap<String, Endpoint>> =
        serde_json::from_str(include_str!("../data/contract.json"))
            .expect("the contract file is part of the program");
    let split = |template: &str| {
        template
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    paths
        .into_iter()
        .map(|(template, methods)| Route {
            segments: split(&template),
            template,
            methods,
        })
        .collect()
});

/// A path and method that the contract knows, with the parameters that stand in the path.
pub(crate) struct Match {
    pub(crate) template: &'static str,
    pub(crate) endpoint: &'static Endpoint,
    pub(crate) uri: Map<String, Value>,
}

/// Finds the call for a path; literal segments win over `{name}` segments.
pub(crate) fn find(method: &str, path: &[String]) -> Option<Match> {
    ROUTES
        .iter()
        .filter_map(|route| bind(&route.segments, path).map(|(uri, exact)| (route, uri, exact)))
        .max_by_key(|(_, _, exact)| *exact)
        .and_then(|(route, uri, _)| {
            Some(Match {
                template: &route.template,
                endpoint: route.methods.get(method)?,
                uri,
            })
        })
}

fn bind(segments: &[String], path: &[String]) -> Option<(Map<String, Value>, usize)> {
    // A volume id holds a slash, and clients send it bare as well as encoded.
    let open_end = segments.last().is_some_and(|last| last == "{volume}");
    if path.len() < segments.len() || (path.len() > segments.len() && !open_end) {
        return None;
    }
    let mut uri = Map::new();
    let mut exact = 0;
    for (index, segment) in segments.iter().enumerate() {
        let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) else {
            if segment != &path[index] {
                return None;
            }
            exact += 1;
            continue;
        };
        let value = if name == "volume" {
            path[index..].join("/")
        } else {
            path[index].clone()
        };
        uri.insert(name.to_owned(), Value::String(value));
    }
    Some((uri, exact))
}

/// The property of a parameter name; `net0` is found as `net[n]`.
pub(crate) fn property<'a>(
    params: &'a BTreeMap<String, Property>,
    name: &str,
) -> Option<&'a Property> {
    if let Some(found) = params.get(name) {
        return (!name.contains('[')).then_some(found);
    }
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[base.len()..];
    let limit: u32 = if base == "net" { 31 } else { 255 };
    let number: u32 = digits.parse().ok()?;
    (number <= limit && digits == number.to_string())
        .then(|| params.get(&format!("{base}[n]")))
        .flatten()
}

/// The options of a container, as the call that creates one takes them.
pub(crate) fn container_options() -> &'static BTreeMap<String, Property> {
    static OPTIONS: LazyLock<&'static BTreeMap<String, Property>> = LazyLock::new(|| {
        let path: Vec<String> = ["nodes", "n", "lxc"].map(str::to_owned).to_vec();
        &find("POST", &path)
            .expect("the contract has the call that creates containers")
            .endpoint
            .params
    });
    &OPTIONS
}

/// Checks all parameters and names every bad one at once.
pub(crate) fn check(
    known: &BTreeMap<String, Property>,
    raw: &Map<String, Value>,
) -> Result<Params, ParamErrors> {
    let mut errors = ParamErrors::new();
    let mut params = BTreeMap::new();
    for (name, value) in raw {
        let Some(property) = property(known, name) else {
            errors.insert(name.clone(), UNKNOWN.to_owned());
            continue;
        };
        match scalar(property, value)
            .and_then(|text| check_value(property, name, &text).map(|()| text))
        {
            Ok(text) => {
                params.insert(name.clone(), text);
            }
            Err(text) => {
                errors.insert(name.clone(), text);
            }
        }
        if let Some(other) = property.requires.as_ref().filter(|o| !raw.contains_key(*o)) {
            let text = format!("missing property - '{name}' requires this property");
            errors.insert(other.clone(), text);
        }
    }
    for (name, property) in known {
        if property.optional == 0 && !raw.contains_key(name) {
            errors.insert(name.clone(), MISSING.to_owned());
        }
    }
    if errors.is_empty() {
        Ok(Params(params))
    } else {
        Err(errors)
    }
}

const UNKNOWN: &str =
    "property is not defined in schema and the schema does not allow additional properties";
const MISSING: &str = "property is missing and it is not optional";

fn scalar(property: &Property, value: &Value) -> Result<String, String> {
    let is_list = property
        .format
        .as_ref()
        .is_some_and(|name| name.ends_with("-list"));
    let got = |what: &str| {
        Err(format!(
            "type check ('{}') failed - got {what}",
            property.kind
        ))
    };
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(u8::from(*flag).to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(list) if is_list => Ok(list
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            })
            .collect::<Vec<_>>()
            .join(",")),
        Value::Array(_) => got("ARRAY"),
        Value::Object(_) => got("HASH"),
    }
}

fn check_value(property: &Property, name: &str, text: &str) -> Result<(), String> {
    check_type(&property.kind, text)?;
    if let Some(keys) = &property.keys {
        parse_property_string(keys, name, text)
            .map_err(|error| format!("invalid format - {error}"))?;
    } else if let Some(format) = &property.format {
        format::check(format, text).map_err(|error| format!("invalid format - {error}\n"))?;
    }
    check_limits(property, text)
}

fn check_type(kind: &str, text: &str) -> Result<(), String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let good = match kind {
        "integer" => digits(unsigned),
        "number" => match unsigned.split_once('.') {
            Some((whole, rest)) => digits(whole) && digits(rest),
            None => digits(unsigned),
        },
        "boolean" => matches!(text, "0" | "1"),
        _ => true,
    };
    if good {
        Ok(())
    } else {
        Err(format!("type check ('{kind}') failed - got '{text}'"))
    }
}

fn check_limits(property: &Property, text: &str) -> Result<(), String> {
    if let Some(pattern) = &property.pattern
        && !format::matches(pattern, text)
    {
        return Err("value does not match the regex pattern".to_owned());
    }
    let length = text.chars().count();
    if let Some(limit) = property.max_length.filter(|limit| length > *limit) {
        return Err(format!("value may only be {limit} characters long"));
    }
    if let Some(limit) = property.min_length.filter(|limit| length < *limit) {
        return Err(format!("value must be at least {limit} characters long"));
    }
    if matches!(property.kind.as_str(), "integer" | "number") {
        let number: f64 = text.parse().unwrap_or_default();
        if let Some(limit) = property.maximum.filter(|limit| number > *limit) {
            return Err(format!("value must have a maximum value of {limit}"));
        }
        if let Some(limit) = property.minimum.filter(|limit| number < *limit) {
            return Err(format!("value must have a minimum value of {limit}"));
        }
    }
    match &property.choices {
        Some(choices) if !choices.iter().any(|choice| choice == text) => Err(format!(
            "value '{text}' does not have a value in the enumeration '{}'",
            choices.join(", ")
        )),
        _ => Ok(()),
    }
}

/// Reads `key=value,key=value`; the error text is the one that stands behind `invalid format - `.
pub(crate) fn parse_property_string(
    keys: &BTreeMap<String, Property>,
    name: &str,
    text: &str,
) -> Result<BTreeMap<String, String>, String> {
    let default_key = keys
        .iter()
        .find(|(_, p)| p.default_key == 1)
        .map(|(k, _)| k);
    let mut values = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = match (part.split_once('='), default_key) {
            (Some((key, value)), _) if !key.is_empty() && !value.is_empty() => {
                (key.to_owned(), value)
            }
            (Some(_), _) => {
                return Err("missing key in comma-separated list property\n".to_owned());
            }
            (None, Some(key)) => (key.clone(), part),
            (None, None) => {
                return Err(
                    "value without key, but schema does not define a default key\n".to_owned(),
                );
            }
        };
        if values.insert(key.clone(), value.to_owned()).is_some() {
            return Err(format!(
                "duplicate key in comma-separated list property: {key}\n"
            ));
        }
    }
    let errors = check_keys(keys, &values);
    if errors.is_empty() {
        return Ok(values);
    }
    let lines: String = errors
        .iter()
        .map(|(key, error)| format!("{name}.{key}: {error}\n"))
        .collect();
    Err(format!("format error\n{lines}"))
}

/// The errors of a property string, key by key.
pub(crate) fn check_keys(
    keys: &BTreeMap<String, Property>,
    values: &BTreeMap<String, String>,
) -> ParamErrors {
    let mut errors = ParamErrors::new();
    for (key, value) in values {
        match keys.get(key) {
            None => {
                errors.insert(key.clone(), UNKNOWN.to_owned());
            }
            Some(property) => {
                if let Err(text) = check_value(property, key, value) {
                    errors.insert(key.clone(), text);
                }
            }
        }
    }
    for (key, property) in keys {
        if property.optional == 0 && !values.contains_key(key) {
            errors.insert(key.clone(), MISSING.to_owned());
        }
    }
    errors
}

/// Writes a property string as Proxmox VE does: default key bare, required keys, then the others by name.
pub(crate) fn print_property_string(
    keys: &BTreeMap<String, Property>,
    values: &BTreeMap<String, String>,
) -> String {
    let rank = |key: &String| match keys.get(key) {
        Some(p) if p.default_key == 1 => 0,
        Some(p) if p.optional == 0 => 1,
        _ => 2,
    };
    let mut order: Vec<_> = values.iter().collect();
    order.sort_by_key(|(key, _)| (rank(key), key.as_str().to_owned()));
    let parts: Vec<String> = order
        .into_iter()
        .map(|(key, value)| match rank(key) {
            0 => value.clone(),
            _ => format!("{key}={value}"),
        })
        .collect();
    parts.join(",")
}
