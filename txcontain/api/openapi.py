"""The REST API as an OpenAPI 3.1 document, served at /openapi.json.

Each area describes its own paths. API.md says the same to people; a test compares both with each
other and with the resources.
"""

from __future__ import annotations

from txcontain.api.areas import AREAS
from txcontain.api.describe import COMMON, PROBLEM, Json, answer, extension

ITSELF = extension("openapi", "This document", answer("OpenAPI 3.1", {"type": "object"}))
PATHS: Json = {
    path: {
        key: {**value, "tags": [tag]} if key != "parameters" else value
        for key, value in operations.items()
    }
    for tag, area in AREAS.items()
    for path, operations in area.paths.items()
}
PATHS["/openapi.json"] = {"get": {**ITSELF, "tags": ["system"]}}
SCHEMAS: Json = {
    "Problem": PROBLEM,
    **{name: schema for area in AREAS.values() for name, schema in area.schemas.items()},
}


def _with_head(operations: Json) -> Json:
    """HEAD, if there is GET: the same answers, without their bodies (RFC 9110, 9.3.2)."""
    if "get" not in operations:
        return operations
    get = operations["get"]
    answers = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in get["responses"].items()
    }
    head = {**get, "operationId": f"{get['operationId']}Head", "responses": answers}
    return {**operations, "head": head}


DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "txcontain",
        "version": "1",
        "description": "A path also works with a slash at its end. A method that a path does not "
        "have is answered with 405 and Allow, an unknown path with 404.",
    },
    "servers": [{"url": "/"}],
    "security": [{}, {"token": []}, {"certificate": []}],
    "tags": [{"name": tag, "description": area.__doc__} for tag, area in AREAS.items()],
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
