"""What the areas of the API describe themselves with: schemas, parameters, answers, operations.

openapi.py puts the descriptions together (OpenAPI 3.1).
"""

from __future__ import annotations

from typing import Any

from txcontain.container.keys import Key, schema_of

Json = dict[str, Any]
Keys = dict[str, Key]  # what a body may have: verbs.py reads it

# -- schemas: what is sent and what is answered ------------------------------------


def string(description: str) -> Json:
    """A string."""
    return {"type": "string", "description": description}


def numeric(
    description: str,
    least: float | None = None,
    most: float | None = None,
    kind: str | list[str] = "integer",
) -> Json:
    """A number, or whatever else ``kind`` says."""
    bounds = {"minimum": least, "maximum": most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return {"type": kind, "description": description, **given}


def one_of(description: str, *choices: str) -> Json:
    """One of these strings."""
    return {"type": "string", "enum": list(choices), "description": description}


def array(items: Json, description: str = "") -> Json:
    """A list."""
    schema = {"type": "array", "items": items}
    return schema | ({"description": description} if description else {})


def structure(properties: Json, *optional: str, closed: bool = False) -> Json:
    """An object; all keys but the optional ones are there, and others only if it is not closed."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": not closed,
    }


PRESSURE = {
    "type": "object",
    "description": "for how much of the last 10 s one of the processes waited, in per cent, by what"
    " for: cpu, memory, io; empty if the kernel does not count that",
    "additionalProperties": {"type": "number"},
}


def ref(name: str, kind: str = "schemas") -> Json:
    """What has this name among the components: each area names its ``schemas``."""
    return {"$ref": f"#/components/{kind}/{name}"}


def or_null(schema: Json) -> Json:
    """What the schema says, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


PROBLEM = structure(
    {
        "type": string("the kind of the problem, for programs: a URN that stays as it is"),
        "title": string("the status, in words"),
        "status": numeric("the status", 400, 599),
        "detail": string("what could not be done"),
        "chain": array(string("what leads from there to the cause, and to what to do")),
    }
)

# -- parameters --------------------------------------------------------------------

LARGEST_QUERY = 10**15 - 1
FLAG = one_of("1 or true: yes", "0", "1", "false", "true")
MOMENT = {"type": "string", "description": "RFC 3339, or a duration: that long ago"}
BINARY = {"type": "string", "format": "binary"}


def in_path(name: str, description: str, schema: Json | None = None) -> Json:
    """A part of the path that names something."""
    schema = schema or {"type": "string", "minLength": 1}
    place = {"name": name, "in": "path", "required": True}
    return {**place, "description": description, "schema": schema}


INSTANCE = in_path(
    "instance", "its name, the beginning of it if no other begins so, config:NAME or service:NAME"
)


def in_query(name: str, description: str, schema: Json) -> Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def json_body(name: str) -> Json:
    """A body that a request must have: JSON, with the schema of this name."""
    return {"required": True, "content": {"application/json": {"schema": ref(name)}}}


def bytes_body(schema: Json = BINARY) -> Json:
    """A body that a request must have: bytes, whatever they are."""
    return {"required": True, "content": {"application/octet-stream": {"schema": schema}}}


def body_of(keys: Keys, *required: str) -> Json:
    """A body with these keys, which a request may leave out if none of them is required."""
    schema = structure(schema_of(keys), *(set(keys) - set(required)), closed=True)
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


# -- answers and operations --------------------------------------------------------

REASON = {
    "Txcontain-Reason": {
        "description": "why, percent-encoded (RFC 3986)",
        "schema": {"type": "string"},
    }
}


def answer(description: str, schema: Json | None = None, kind: str = "application/json") -> Json:
    """An answer to a request that succeeded."""
    content = {"content": {kind: {"schema": schema}}} if schema else {}
    return {"description": description, **content}


SCRIPT = answer("a shell script", {"type": "string"}, "text/x-shellscript")


def _refusal(description: str) -> Json:
    return {"description": description, "headers": REASON}


def _problem(description: str) -> Json:
    problem = answer(description, ref("Problem"), "application/problem+json")
    return {**problem, "headers": REASON}


# The refusals that any request can get.
COMMON: Json = {
    "400": _refusal("the request is not valid HTTP, or could be read in two ways"),
    "401": _refusal("the caller has shown no token and no certificate that the manager knows"),
    "403": _refusal("a web page of another site sent it, or the caller's role is too small"),
    "408": _refusal("the request was not complete in time (--request-timeout)"),
    "501": _problem("this manager's engine does not have it (docs/many-hosts.md)"),
    "503": _refusal("there are too many connections, or a swarm does not answer now"),
}
COMMON["401"]["headers"] = {**REASON, "WWW-Authenticate": {"schema": {"type": "string"}}}
ANY_TIME = {"409": "invalid data", "500": "the machine is at fault, or the manager"}
NO_INSTANCE = {"404": "there is no such instance"}


def _operation(name: str, summary: str, success: Json, refused: Json, more: Json) -> Json:
    common = {status: ref(f"Refused{status}", "responses") for status in COMMON}
    answers = dict(sorted({"200": success, **common, **refused}.items()))
    return {"operationId": name, "summary": summary, **more, "responses": answers}


def v1(name: str, summary: str, success: Json, refused: Json | None = None, **more: Any) -> Json:
    """An operation of v1, refused with an empty body; ``refused``: status to why."""
    reasons = {**ANY_TIME, **(refused or {})}
    answers = {status: _refusal(why) for status, why in reasons.items()}
    return _operation(name, summary, success, answers, more)


def extension(
    name: str, summary: str, success: Json, refused: Json | None = None, **more: Any
) -> Json:
    """An operation of the extensions, refused with a problem document."""
    reasons = {**ANY_TIME, **(refused or {})}
    answers = {status: _problem(why) for status, why in reasons.items()}
    return _operation(name, summary, success, answers, more)
