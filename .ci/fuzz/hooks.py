"""What schemathesis cannot know: how forms say things, and which answer is held back on purpose."""

from urllib.parse import parse_qs

import jsonschema_rs
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation

FORM = "application/x-www-form-urlencoded"
ELSEWHERE = (ParameterLocation.PATH, ParameterLocation.QUERY, ParameterLocation.HEADER, ParameterLocation.COOKIE)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Keeps a failure unless it is an accepted form that says, as text, what the schema allows.

    In a form all is text, and a field that is left empty is there all the same: `expires=` is no time, `protected=0` no boolean,
    to a schema that is written for JSON. What the server read is held to that schema here.
    """
    return not (
        isinstance(failure, AcceptedNegativeData)
        and case.media_type == FORM
        and not any(case.meta.is_negative_at(place) for place in ELSEWHERE)
        and allowed(response.request.body, case.operation.schema.raw_schema, case.operation.definition.raw)
    )


@schemathesis.hook
def before_call(context, case, kwargs):
    """Lets `GET /nginx.conf?wait=300` with `If-None-Match: *` not wait its 300 s, which is what it is for, but one."""
    if case.operation.label != "GET /nginx.conf":
        return
    if case.meta is None or case.meta.is_negative_at(ParameterLocation.QUERY):
        case.headers.pop("If-None-Match", None)
    elif "wait" in case.query:
        case.query["wait"] = min(int(case.query["wait"]), 1)


def allowed(body, spec, operation):
    schema = operation["requestBody"]["content"][FORM]["schema"]
    fields = spec["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]
    text = body.decode() if isinstance(body, bytes) else body or ""
    read = {}
    for name, values in parse_qs(text, keep_blank_values=True).items():
        field = fields.get(name, {})
        if len(values) > 1 and field.get("type") != "array":
            return False
        value = values if len(values) > 1 else typed(values[0], field)
        if value is not None:
            read[name] = value
    whole = {**schema, "components": spec["components"]}
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True).is_valid(read)


def typed(text, field):
    """A value of a form as its field's type; nothing where it was left empty; the text where it is no such value."""
    kind = field.get("type")
    if not text.strip() and (kind != "string" or field.get("format") == "date-time"):
        return None
    if kind == "boolean":
        return {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}.get(text.strip(), text)
    if kind == "integer":
        try:
            return int(text)
        except ValueError:
            return text
    if kind == "array":
        return [word.strip() for word in text.split(",")]
    return text
