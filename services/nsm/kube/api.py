"""Requests to the API server: objects are plain dicts, and errors are one line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx2
from lightkube.core.exceptions import ConfigError

from .errors import Action, Rejected, Unauthorized, Unreachable, error_of, error_of_status
from .parsing import parsed
from .resources import Object, Resource

_PAGE = 500
"""The most objects in one page of a list."""
_LATE = 10.0
"""Seconds by which an API server may be late to end a watch; if it is silent for longer, it counts as dead."""


class PatchType(StrEnum):
    """The kind of a patch, as its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects at one moment; a watch continues from `version`."""

    objects: list[Object]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """An event of a watch: `type` is ADDED, MODIFIED, DELETED, or BOOKMARK (only the version of the object counts)."""

    type: str
    object: Object


class Api:
    """An API server. `namespace` is the one that this process runs in, or that the kubeconfig names.

    A request fails if it receives nothing for 10 s. Each raises the errors of `nsm.kube.errors`, all of them
    `MeshError`.
    """

    def __init__(self, client: httpx2.AsyncClient, *, server: str, namespace: str) -> None:
        self._client = client
        self.server, self.namespace = server, namespace

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """The object of that name."""
        return await self._ask("GET", Action("get", resource, namespace, name))

    async def create(self, resource: Resource, body: Object, namespace: str = "") -> Object:
        """Create an object; returns it as stored. Raises `ObjectConflict` if there is one with that name."""
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._ask("POST", Action("create", resource, namespace), body=typed)

    async def replace(self, resource: Resource, body: Object) -> Object:
        """Replace the object of that name by `body`; if `body` has a resourceVersion, only that version."""
        metadata = body["metadata"]
        action = Action("update", resource, metadata.get("namespace", ""), metadata["name"])
        return await self._ask("PUT", action, body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: PatchType = PatchType.MERGE,
        subresource: str = "",
        manager: str = "",
    ) -> Object:
        """Change parts of an object; `manager` names the owner of the fields (required for `PatchType.APPLY`)."""
        action = Action("patch", resource, namespace, name, subresource)
        params = {"fieldManager": manager} if manager else {}
        return await self._ask("PATCH", action, params=params, body=patch, content_type=kind)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, uid: str = "", version: str = ""
    ) -> None:
        """Delete an object; with `uid` or `version` only that one, otherwise raises `ObjectConflict`."""
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", version)) if v}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._ask("DELETE", Action("delete", resource, namespace, name), body=options if preconditions else None)

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> Listing:
        """All objects in the namespace, or in all namespaces, that the selectors match."""
        action = Action("list", resource, namespace)
        params = {"limit": str(_PAGE), **_selectors(labels, fields)}
        objects: list[Object] = []
        while True:
            page = await self._ask("GET", action, params=params)
            objects += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(objects, metadata.get("resourceVersion", ""))
            params = {**params, "continue": metadata["continue"]}

    async def newest(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> str:
        """The version that a list would return now, obtained with at most one object."""
        params = {"limit": "1", **_selectors(labels, fields)}
        page = await self._ask("GET", Action("list", resource, namespace), params=params)
        return str((page.get("metadata") or {}).get("resourceVersion", ""))

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        version: str,
        seconds: float,
        labels: str = "",
        fields: str = "",
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Changes since `version`, for at most `seconds`; entered once the API server has accepted the watch.

        Raises `Gone`, at once or later, if the version is too old, and `Unreachable` if the server is silent beyond
        that time: a proxy may keep a connection open whose other end is gone.
        """
        action = Action("watch", resource, namespace)
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(seconds)),
            **_selectors(labels, fields),
        }
        timeout = httpx2.Timeout(self._client.timeout.connect, read=seconds + _LATE)
        with _translated(action):
            async with self._client.stream("GET", resource.path(namespace), params=params, timeout=timeout) as response:
                if response.is_error:
                    raise error_of(response.status_code, await response.aread(), action)
                yield _events(response, action)

    async def version(self) -> Object:
        """The API server's version: `gitVersion`, `major`, `minor`."""
        with _translated(_VERSION):
            response = await self._client.get("/version")
            return _decoded(response, _VERSION)

    async def _ask(
        self,
        method: str,
        action: Action,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        path = action.resource.path(action.namespace, action.name, action.subresource)
        content = None if body is None else _encoded(body, action)
        headers = {} if body is None else {"Content-Type": content_type}
        with _translated(action):
            response = await self._client.request(method, path, params=params, content=content, headers=headers)
            return _decoded(response, action)


_VERSION = Action("get", Resource("", "v1", "version", "Info", namespaced=False))


def _encoded(body: Any, action: Action) -> bytes:
    try:
        return json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        raise Rejected(f"cannot {action}: the object's content is nested too deeply; delete it") from None


def _decoded(response: httpx2.Response, action: Action) -> Object:
    if response.is_error:
        raise error_of(response.status_code, response.content, action)
    return _parsed(response.content, action)


def _parsed(text: bytes, action: Action) -> Object:
    try:
        found = parsed(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable(f"cannot {action}: the response is not from an API server: {text[:80]!r}")
    return found


async def _events(response: httpx2.Response, action: Action) -> AsyncIterator[WatchEvent]:
    """One event per line. Only a line feed ends a line: values may contain other breaks."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            event = _parsed(line, action)
            if event["type"] == "ERROR":
                raise error_of_status(event["object"].get("code", 500), event["object"], action)
            yield WatchEvent(event["type"], event["object"])


@contextmanager
def _translated(action: Action) -> Iterator[None]:
    """Turn errors below HTTP into the errors of this package."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise Unreachable(f"cannot {action}: the API server did not respond in time") from error
    except httpx2.TransportError as error:
        raise Unreachable(f"cannot {action}: the API server cannot be reached: {_reason(error)}") from error
    except ConfigError as error:
        raise Unauthorized(f"cannot {action}: no token: {error}") from error


def _reason(error: BaseException) -> str:
    """The message of the innermost cause: outer ones say only that all attempts failed."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return str(error) or type(error).__name__


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
