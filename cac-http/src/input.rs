//! Request bodies: JSON and forms read by one schema, so that every field is checked the same way and all messages come at
//! once. poem-openapi's own `Form` goes round the schema.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use cac_core::Error;
use cac_core::error::Fields;
use chrono::{DateTime, NaiveDateTime, Utc};
use poem::http::StatusCode;
use poem::http::header::CONTENT_TYPE;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{ApiError, Result};

/// The longest body that is read.
pub(crate) const MAX_BODY: usize = 64 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// A body as it came; [`Input::read`] checks it.
pub(crate) struct Input<T> {
    /// The fields as they were sent, for a form that is shown again.
    pub raw: Map<String, Value>,
    /// Whether a form sent it.
    pub form: bool,
    shape: PhantomData<fn() -> T>,
}

/// A password may be among the fields.
impl<T> Drop for Input<T> {
    fn drop(&mut self) {
        for value in self.raw.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }
}

impl<T: ParseFromJSON> Input<T> {
    /// The fields by their types; every field that does not fit, or that there is not, gets its message.
    pub(crate) fn read(&self) -> Result<T> {
        let schema = Registry::new().create_fake_schema::<T>();
        let known: Vec<&str> = schema.properties.iter().map(|(name, _)| *name).collect();
        // A form's own words about itself, such as `_method`, are no fields.
        let unknown = |name: &&String| {
            let about = self.form && name.starts_with('_');
            !about && !known.contains(&name.as_str())
        };
        if let Some(name) = self.raw.keys().find(unknown) {
            let message = format!("There is no such field; use {}.", known.join(", "));
            let detail = format!("{name}: {message}");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail).field(name, message));
        }
        self.typed(&schema)
    }

    /// The same, leaving aside what there is not: scripts send the original's own routes more than it says.
    pub(crate) fn read_some(&self) -> Result<T> {
        self.typed(&Registry::new().create_fake_schema::<T>())
    }

    fn typed(&self, schema: &MetaSchema) -> Result<T> {
        let mut fields = Fields::default();
        let mut checked = Map::new();
        for (name, property) in &schema.properties {
            let MetaSchemaRef::Inline(property) = property else {
                return Err(ApiError::internal(format!("{name} is no plain field")));
            };
            match self
                .raw
                .get(*name)
                .map_or(Ok(None), |value| match &property.items {
                    Some(items) if property.ty == "array" && is_integer(items) => whole(value),
                    _ => plain(self.form, value, property.ty, property.format),
                }) {
                Ok(Some(value)) => drop(checked.insert((*name).to_owned(), value)),
                Ok(None) => {}
                Err(message) => fields.add(name, message),
            }
        }
        fields.into_result().map_err(ApiError::from)?;
        T::parse_from_json(Some(Value::Object(checked)))
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.into_message()))
    }
}

fn is_integer(items: &MetaSchemaRef) -> bool {
    matches!(items, MetaSchemaRef::Inline(items) if items.ty == "integer")
}

/// A list of whole numbers, in a form as a comma list.
fn whole(value: &Value) -> std::result::Result<Option<Value>, &'static str> {
    const NUMBERS: &str = "Give a list of whole numbers here.";
    let numbers: Option<Vec<i64>> = match value {
        Value::Null => return Ok(None),
        Value::Array(items) => items.iter().map(Value::as_i64).collect(),
        Value::String(text) => {
            let words = text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty());
            words.map(|word| word.parse().ok()).collect()
        }
        _ => None,
    };
    Ok(Some(Value::from(numbers.ok_or(NUMBERS)?)))
}

/// A value as its field's type; `None` when it was left out or, in a `form`, left empty: browsers send every field.
fn plain(
    form: bool,
    value: &Value,
    ty: &str,
    format: Option<&str>,
) -> std::result::Result<Option<Value>, &'static str> {
    let time = format == Some("date-time");
    let value = match (ty, value) {
        (_, Value::Null) => return Ok(None),
        (_, Value::String(text)) if form && text.trim().is_empty() && (ty != "string" || time) => {
            return Ok(None);
        }
        ("string", Value::String(text)) if time => {
            let Some(time) = time_of(text) else {
                return Err("Give a time such as 2030-01-31T15:00:00Z here.");
            };
            Value::from(time.to_rfc3339())
        }
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("string", _) => return Err("Give text here."),
        ("integer", Value::Number(n)) if n.is_i64() => value.clone(),
        ("integer", Value::String(text)) => Value::from(
            text.trim()
                .parse::<i64>()
                .map_err(|_| "Give a whole number here.")?,
        ),
        ("integer", _) => return Err("Give a whole number here."),
        ("boolean", Value::String(text)) => match text.trim() {
            "true" | "1" | "on" => Value::Bool(true),
            "false" | "0" | "off" => Value::Bool(false),
            _ => return Err("Give `true` or `false` here."),
        },
        ("boolean", _) => return Err("Give `true` or `false` here."),
        ("array", Value::String(text)) => text
            .split(',')
            .map(|word| Value::from(word.trim()))
            .collect(),
        ("array", Value::Array(items)) if items.iter().all(Value::is_string) => value.clone(),
        ("object", Value::Object(values)) => named(values)?,
        ("object", Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(values)) => named(&values)?,
            _ => return Err(NAMED),
        },
        ("object", _) => return Err(NAMED),
        _ => return Err("Give a list of words here."),
    };
    Ok(Some(value))
}

/// A time as RFC 3339 or as browsers' fields for times write it, without a zone: that is UTC.
fn time_of(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let browser = |format| NaiveDateTime::parse_from_str(text, format).ok();
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.to_utc()),
        Err(_) => browser("%Y-%m-%dT%H:%M")
            .or_else(|| browser("%Y-%m-%dT%H:%M:%S"))
            .map(|time| time.and_utc()),
    }
}

/// A time in a query, which a form may have sent.
pub(crate) struct Time(pub DateTime<Utc>);

impl Type for Time {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        <DateTime<Utc>>::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        <DateTime<Utc>>::schema_ref()
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromParameter for Time {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        time_of(value)
            .map(Self)
            .ok_or_else(|| ParseError::custom("no time"))
    }
}

const NAMED: &str = "Give values by name here, such as {\"name\": \"value\"}.";

/// Values by name, all as text.
fn named(values: &serde_json::Map<String, Value>) -> std::result::Result<Value, &'static str> {
    let text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(NAMED),
        };
        Ok((name.clone(), Value::String(text)))
    };
    values
        .iter()
        .map(text)
        .collect::<std::result::Result<_, _>>()
        .map(Value::Object)
}

impl<'a, T: Type + ParseFromJSON> ApiExtractor<'a> for Input<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let media = |content_type| MetaMediaType {
            content_type,
            schema: T::schema_ref(),
        };
        Some(MetaRequest {
            description: None,
            content: vec![media("application/json"), media(FORM)],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let kind = content_type(request);
        let form = kind == FORM;
        if !form && kind != "application/json" && !kind.ends_with("+json") {
            let detail = format!("Send the body as application/json or {FORM}.");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into());
        }
        let bytes = Zeroizing::new(bounded(body.take()?).await?);
        let raw = if form {
            read_form(&bytes)
        } else {
            read_json(&bytes)?
        };
        Ok(Self {
            raw,
            form,
            shape: PhantomData,
        })
    }
}

/// The media type of a body in lower case, without its parameters.
pub(crate) fn content_type(request: &Request) -> String {
    let value = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let kind = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The whole body, up to [`MAX_BODY`], if it comes within [`BODY_TIME`].
pub(crate) async fn bounded(body: poem::Body) -> Result<Vec<u8>> {
    let read = tokio::time::timeout(BODY_TIME, body.into_bytes_limit(MAX_BODY));
    let Ok(read) = read.await else {
        let detail = format!("The body did not come within {} s.", BODY_TIME.as_secs());
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, detail));
    };
    match read {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(poem::error::ReadBodyError::PayloadTooLarge) => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("A request may have at most {MAX_BODY} bytes."),
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "The body broke off; send it again.",
        )),
    }
}

fn read_json(bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(bad(
            "Send a JSON object, such as {\"hostname\": \"web\"}.".to_owned()
        )),
        Err(error) => Err(bad(format!("The body is not JSON: {error}."))),
    }
}

fn bad(detail: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

/// A form's fields; of a field that comes twice all values count, joined as a comma list.
pub(crate) fn read_form(bytes: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(bytes) {
        match fields.get_mut(name.as_ref()) {
            Some(Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => drop(fields.insert(name.into_owned(), Value::String(value.into_owned()))),
        }
    }
    fields
}

/// Fields that no form shows again, so that no copy is made of them.
const NEVER_SHOWN: [&str; 3] = ["password", "secret", "code"];

/// Text that a form shows again.
pub(crate) fn shown(raw: &Map<String, Value>) -> std::collections::BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    };
    raw.iter()
        .filter(|(name, _)| !NEVER_SHOWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// The seed's `init`, which may stand in the query or in the body.
pub(crate) fn flag(raw: &Map<String, Value>, name: &'static str) -> Result<Option<bool>> {
    match raw
        .get(name)
        .map(|value| plain(true, value, "boolean", None))
    {
        None => Ok(None),
        Some(Ok(value)) => Ok(value.and_then(|v| v.as_bool())),
        Some(Err(message)) => Err(Error::invalid(name, message).into()),
    }
}
