"""The OpenAPI document of a view, made from the model."""

from __future__ import annotations

from functools import cache
from typing import Any

from nsm.view import form
from nsm.view.model import (
    Attempt,
    Change,
    Component,
    Counted,
    Domain,
    Endpoint,
    Event,
    Node,
    Service,
    Snapshot,
    Wire,
    WireState,
)

PREFIX = "/api/v1"
_LISTS: tuple[tuple[str, type[Any], str], ...] = (
    ("attempts", Attempt, "Wires that were requested and do not exist"),
    ("services", Service, "All services"),
    ("endpoints", Endpoint, "All registered endpoints"),
    ("components", Component, "Registries, managers and forwarders"),
    ("nodes", Node, "The nodes of all managers"),
    ("domains", Domain, "The domains of all registries"),
)
_TEXT, _NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0}


@cache
def document() -> dict[str, Any]:
    """The document, version 3.1."""
    paths = {
        f"{PREFIX}/snapshot": _get("Everything at this moment", _ref(Snapshot)),
        f"{PREFIX}/wires": _get(
            "All wires, ordered by client and interface",
            _array(Wire),
            *(_query(name, f"only those of this {name}") for name in ("client", "service", "endpoint", "node")),
            _query("state", "only those in this state", {"type": "string", "enum": [*WireState]}),
            _query("down", "only those that are not up", {"type": "boolean"}),
        ),
        f"{PREFIX}/wires/{{name}}": _get(
            "One wire",
            _ref(Wire),
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "its id, a unique beginning of it, or client/interface",
                "schema": _TEXT,
            },
            errors={"404": "there is no such wire", "409": "the name fits several wires"},
        ),
        f"{PREFIX}/events": _get(
            "What occurred in the last hours, oldest first",
            _array(Event),
            _query("wire", "only those of the wire with this id"),
            _query("after", "only those behind the event with this number", _NUMBER),
            _query("limit", "at most so many, the latest ones", _NUMBER),
        ),
        f"{PREFIX}/traffic": _get(
            "How the traffic of a wire went during the last hour, oldest first",
            _array(Counted),
            _query("wire", "the id of the wire"),
        ),
        **{f"{PREFIX}/{name}": _get(about, _array(kind)) for name, kind, about in _LISTS},
        f"{PREFIX}/stream": _stream(),
    }
    kinds = dict.fromkeys([*form.kinds(Change), *form.kinds(Snapshot), Counted])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Network Service Mesh view", "version": "1", "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {kind.__name__: form.schema(kind) for kind in kinds} | {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_ABOUT = "The state of a mesh and what occurred in it. Times are RFC 3339; what is empty or null may be left out."
_ERROR = {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]}


def _get(
    about: str, schema: dict[str, Any], *parameters: dict[str, Any], errors: dict[str, str] | None = None
) -> dict[str, Any]:
    failures = {"400": "an invalid parameter", **(errors or {})} if parameters else {}
    return {
        "get": {
            "summary": about,
            **({"parameters": [*parameters]} if parameters else {}),
            "responses": {
                "200": {"description": about, "content": {"application/json": {"schema": schema}}},
                **{
                    code: {"description": what, "content": {"application/json": {"schema": _named("Error")}}}
                    for code, what in failures.items()
                },
            },
        }
    }


def _stream() -> dict[str, Any]:
    about = "Every change, as server-sent events"
    more = (
        "The event is the kind of the change, the data its JSON, the id the position behind it. A stream begins with a "
        "snapshot, unless all changes behind the position in Last-Event-ID are still known."
    )
    last = {"name": "Last-Event-ID", "in": "header", "description": "the position to continue at", "schema": _TEXT}
    return {
        "get": {
            "summary": about,
            "description": more,
            "parameters": [last, _query("after", "the same, for clients that cannot set headers")],
            "responses": {"200": {"description": about, "content": {"text/event-stream": {"schema": _ref(Change)}}}},
        }
    }


def _query(name: str, about: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": about, "schema": schema or _TEXT}


def _ref(kind: type[Any]) -> dict[str, Any]:
    return _named(kind.__name__)


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(kind: type[Any]) -> dict[str, Any]:
    return {"type": "array", "items": _ref(kind)}
