"""The REST API as an OpenAPI 3.1 document, served at /openapi.json.

API.md says the same to people; a test compares both with each other and with the resources.
"""

from __future__ import annotations

from typing import Any

from txcontain.container.spec import KEYS, REQUIRED, schema_of
from txcontain.logs.logd import STREAMS

Json = dict[str, Any]

STATES = ("starting", "running", "waiting", "stopping", "ended")


# -- schemas: what is sent and what is answered ------------------------------------


def _string(description: str) -> Json:
    return {"type": "string", "description": description}


def _number(
    description: str,
    least: float | None = None,
    most: float | None = None,
    kind: str | list[str] = "integer",
) -> Json:
    bounds = {"minimum": least, "maximum": most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return {"type": kind, "description": description, **given}


def _choice(description: str, *choices: str) -> Json:
    return {"type": "string", "enum": list(choices), "description": description}


def _list(items: Json, description: str = "") -> Json:
    schema = {"type": "array", "items": items}
    return schema | ({"description": description} if description else {})


def _object(properties: Json, *optional: str, closed: bool = False) -> Json:
    """An object; all keys but the optional ones are there, and others only where not closed."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": not closed,
    }


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


CONFIG = schema_of(KEYS)
KEY = {key: CONFIG[key] for key in ("name", "major", "minor")}
SUMMARY = {"instance": _string("the instance's name"), **KEY}
RECORD: Json = {
    **SUMMARY,
    "state": _choice("where it is in its life", *STATES),
    "since": _number("unix time of the state", kind="number"),
    "launched": _number("unix time of the launch", kind="number"),
    "ready": {"type": "boolean", "description": "whether it listens on its PORT"},
    "pid": _number("PID 1, as the host sees it", kind=["integer", "null"]),
    "restarts": _number("how often it was started again", 0),
    "exit": _or_null(_ref("Exit")),
}
SCHEMAS: Json = {
    "Config": _object(CONFIG, *(set(CONFIG) - set(REQUIRED)), closed=True),
    "Key": _object(KEY, closed=True),
    "Launched": _object(SUMMARY, closed=True),
    "Record": _object(RECORD, closed=True),
    "Instance": _object(
        {
            **RECORD,
            "spec": {"type": "object", "description": "the config, defaults filled in"},
            "layers": _list(_string("the folder of a tarball")),
            "plan": _list({"type": "object"}, "each step, with the seconds it took"),
            "timeline": _list(_number("seconds", kind="number")),
            "in_advance": _number("steps that a warm init had carried out before the launch"),
            "left_out": {"type": "object", "description": "what of each tarball is not in it"},
        }
    ),
    "Exit": _object(
        {
            "status": _number("exit status", kind=["integer", "null"]),
            "signal": _number("signal that ended it", kind=["integer", "null"]),
            "reason": _string("the same as a sentence"),
            "at": _number("unix time", kind="number"),
        }
    ),
    "Usage": _object(
        {
            **SUMMARY,
            "memory": _number("bytes", 0),
            "memory_peak": _number("bytes", 0),
            "cpu_usec": _number("microseconds", 0),
            "pids": _number("processes and threads", 0),
            "limits": {"type": "object", "description": "as in the config"},
        },
        "memory",
        "memory_peak",
        "cpu_usec",
        "pids",
    ),
    "Event": _object(
        {
            "seq": _number("its number", 1),
            "time": _number("unix time", kind="number"),
            "instance": {"type": ["string", "null"]},
            "what": _string("what happened: mostly a state"),
            "reason": _string("why"),
            "by": _string("who asked, where someone did: loopback, uid N, token N, certificate N"),
        },
        "by",
    ),
    "Problem": _object(
        {
            "title": _string("the status, in words"),
            "status": _number("the status", 400, 599),
            "detail": _string("what could not be done"),
            "chain": _list(_string("what leads from there to the cause, and to what to do")),
        }
    ),
}


# -- answers -----------------------------------------------------------------------

REASON = {
    "Txcontain-Reason": {
        "description": "why, percent-encoded (RFC 3986)",
        "schema": {"type": "string"},
    }
}


def _answer(description: str, schema: Json | None = None, kind: str = "application/json") -> Json:
    content = {"content": {kind: {"schema": schema}}} if schema else {}
    return {"description": description, **content}


def _refusal(description: str) -> Json:
    return {"description": description, "headers": REASON}


def _problem(description: str) -> Json:
    answer = _answer(description, _ref("Problem"), "application/problem+json")
    return {**answer, "headers": REASON}


# The refusals that any request can get.
COMMON: Json = {
    "400": _refusal("the request is no HTTP that can be understood in one way only"),
    "401": _refusal("the caller has shown no token and no certificate that the manager knows"),
    "403": _refusal("a web page of another site sent it, or the caller's role is too small"),
    "408": _refusal("the request was not complete in time (--request-timeout)"),
    "503": _refusal("there are too many connections (--max-connections)"),
}
COMMON["401"]["headers"] = {**REASON, "WWW-Authenticate": {"schema": {"type": "string"}}}
INVALID = "invalid data"
NO_INSTANCE = {"404": "there is no such instance"}
AT_FAULT = "the machine is at fault, or the manager"
LARGEST_QUERY = 10**15 - 1


def _operation(summary: str, answer: Json, refused: Json, **more: Any) -> Json:
    common = {status: _ref(f"Refused{status}", "responses") for status in COMMON}
    answers = dict(sorted({"200": answer, **common, **refused}.items()))
    return {"summary": summary, **more, "responses": answers}


def _v1(summary: str, answer: Json, refused: Json | None = None, **more: Any) -> Json:
    """An operation of v1, refused with an empty body; ``refused``: status to why."""
    reasons = {"409": INVALID, "500": AT_FAULT, **(refused or {})}
    answers = {status: _refusal(why) for status, why in reasons.items()}
    return _operation(summary, answer, answers, **more)


def _extension(summary: str, answer: Json, refused: Json | None = None, **more: Any) -> Json:
    """An operation of the extensions, refused with a problem document."""
    reasons = {"409": INVALID, "500": AT_FAULT, **(refused or {})}
    answers = {status: _problem(why) for status, why in reasons.items()}
    return _operation(summary, answer, answers, **more)


def _body(name: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": _ref(name)}}}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


FLAG = _choice("1 or true: yes", "0", "1", "false", "true")
INSTANCE = {
    "name": "instance",
    "in": "path",
    "required": True,
    "description": "as its launch named it",
    "schema": {"type": "string", "minLength": 1},
}

LAUNCH_REFUSED = {
    "404": "there is no such config",
    "409": "invalid data (Bad Request); or the config or an image is at fault",
}
CONFIG_REFUSED = {"409": "invalid data (Bad Request); or there is a config of this name already"}

MOMENT = {"type": "string", "description": "RFC 3339, or a duration: so long ago"}
OF_LOGS = [
    _query("tail", "only the last lines of each", _number("lines", 0, LARGEST_QUERY)),
    _query("follow", "also what is yet to be written, until it has ended", FLAG),
    _query("stream", "only one of the two", _choice("which", *STREAMS)),
    _query("timestamps", "each line begins with its time", FLAG),
    _query("since", "only what was written from then on", MOMENT),
    _query("until", "only what was written up to then", MOMENT),
]

PATHS: Json = {
    "/config": {
        "post": _v1(
            "Keep a config", _answer("it is kept"), CONFIG_REFUSED, requestBody=_body("Config")
        ),
    },
    "/cfginfo": {
        "get": _v1(
            "The configs that are kept",
            _answer("their names, sorted", _object({"files": _list(_string("a name"))})),
        ),
    },
    "/launch": {
        "post": _v1(
            "Start a container of a config",
            _answer("its script runs", _ref("Launched")),
            LAUNCH_REFUSED,
            requestBody=_body("Key"),
        ),
    },
    "/list": {
        "get": _v1(
            "The instances that run",
            _answer(
                "in the order of their launch", _object({"instances": _list(_ref("Launched"))})
            ),
        ),
    },
    "/destroy/{instance}": {
        "delete": _v1(
            "End an instance, and remove all of it", _answer("nothing is left"), NO_INSTANCE
        ),
        "parameters": [INSTANCE],
    },
    "/destroyall": {
        "delete": _v1("End and remove every instance", _answer("nothing is left")),
    },
    "/instances": {
        "get": _extension(
            "All instances, those that have ended too",
            _answer("a record each", _object({"instances": _list(_ref("Record"))})),
        ),
    },
    "/instances/{instance}": {
        "get": _extension(
            "All that is known of an instance",
            _answer("its record, spec, plan", _ref("Instance")),
            NO_INSTANCE,
        ),
        "parameters": [INSTANCE],
    },
    "/instances/{instance}/logs": {
        "get": _extension(
            "What an instance wrote",
            _answer(
                "the bytes that it wrote",
                {"type": "string", "format": "binary"},
                "application/octet-stream",
            ),
            NO_INSTANCE,
            parameters=OF_LOGS,
        ),
        "parameters": [INSTANCE],
    },
    "/instances/{instance}/wait": {
        "get": _extension(
            "Wait until an instance has ended for good",
            _answer("how it ended", _object({"exit": _ref("Exit")})),
            NO_INSTANCE,
        ),
        "parameters": [INSTANCE],
    },
    "/instances/{instance}/stats": {
        "get": _extension(
            "What an instance uses now", _answer("figures", _ref("Usage")), NO_INSTANCE
        ),
        "parameters": [INSTANCE],
    },
    "/instances/{instance}/explain": {
        "get": _extension(
            "An instance's container as a shell script",
            _answer("the script", {"type": "string"}, "text/x-shellscript"),
            NO_INSTANCE,
        ),
        "parameters": [INSTANCE],
    },
    "/logs": {
        "get": _extension(
            "What several instances wrote, by time",
            _answer(
                "lines, each with its instance",
                {"type": "string", "format": "binary"},
                "application/octet-stream",
            ),
            NO_INSTANCE,
            parameters=[
                *OF_LOGS,
                _query(
                    "instance",
                    "one of them; may be given more than once",
                    {"type": "array", "items": {"type": "string"}},
                ),
                _query("all", "of all there are", FLAG),
            ],
        ),
    },
    "/stats": {
        "get": _extension(
            "What all that run use now",
            _answer("figures", _object({"stats": _list(_ref("Usage"))})),
        ),
    },
    "/events": {
        "get": _extension(
            "What has happened",
            _answer("an Event a line", {"type": "string"}, "application/x-ndjson"),
            parameters=[
                _query("since", "only those after this number", _number("seq", 0, LARGEST_QUERY)),
                _query("follow", "also those to come, without end", FLAG),
            ],
        ),
    },
    "/doctor": {
        "post": _extension(
            "Look for what should not be there, and remove it",
            _answer(
                "a sentence each", _object({"findings": _list(_string("what was found and done"))})
            ),
        ),
    },
    "/openapi.json": {
        "get": _extension("This document", _answer("OpenAPI 3.1", {"type": "object"})),
    },
}


def _with_head(operations: Json) -> Json:
    """HEAD, where there is GET: the same answers, without their bodies (RFC 9110, 9.3.2)."""
    if "get" not in operations:
        return operations
    answers = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in operations["get"]["responses"].items()
    }
    return {**operations, "head": {**operations["get"], "responses": answers}}


DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "txcontain",
        "version": "1",
        "description": "A path also works with a slash at its end. A method that a path does not "
        "have is answered with 405 and Allow, a path that is none with 404.",
    },
    "servers": [{"url": "/"}],
    "security": [{}, {"token": []}, {"certificate": []}],
    "paths": {path: _with_head(operations) for path, operations in PATHS.items()},
    "components": {
        "schemas": SCHEMAS,
        "responses": {f"Refused{status}": answer for status, answer in COMMON.items()},
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "certificate": {"type": "mutualTLS"},
        },
    },
}
