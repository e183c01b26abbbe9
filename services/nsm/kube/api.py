"""Requests to the API server: objects are plain dicts, and what goes wrong is one line."""

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
"""Objects that one answer to a list holds at most."""
_LATE = 10.0
"""Seconds by which an API server may be late to end a watch; one that is silent for longer does not live any more."""


class PatchType(StrEnum):
    """How the body of a patch changes the object; its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects at one moment; a watch goes on from `version`."""

    objects: list[Object]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watch tells: `type` is ADDED, MODIFIED, DELETED, or BOOKMARK (only the version of the object counts)."""

    type: str
    object: Object


class Api:
    """An API server. `namespace` is the one that we run in, or that the kubeconfig names.

    A request that waits 10 s for its answer, or for more of it, fails. Each raises the errors of `nsm.kube.errors`, all
    of them `MeshError`.
    """

    def __init__(self, client: httpx2.AsyncClient, *, server: str, namespace: str) -> None:
        self._client = client
        self.server, self.namespace = server, namespace

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """The object of that name."""
        return await self._ask("GET", Action("get", resource, namespace, name))

    async def create(self, resource: Resource, body: Object, namespace: str = "") -> Object:
        """Make an object; returns it as it now stands. Raises `ObjectConflict` if there is one of that name."""
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._ask("POST", Action("create", resource, namespace), body=typed)

    async def replace(self, resource: Resource, body: Object) -> Object:
        """Write `body` over the object of its name; with a resourceVersion in it only over that very version."""
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
        """Change parts of an object; `manager` names who owns the fields (a must for `PatchType.APPLY`)."""
        action = Action("patch", resource, namespace, name, subresource)
        params = {"fieldManager": manager} if manager else {}
        return await self._ask("PATCH", action, params=params, body=patch, content_type=kind)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, uid: str = "", version: str = ""
    ) -> None:
        """Delete an object; with `uid` or `version` only that very one, else `ObjectConflict`."""
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", version)) if v}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._ask("DELETE", Action("delete", resource, namespace, name), body=options if preconditions else None)

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> Listing:
        """All objects, in the namespace or in all of them, that the selectors choose."""
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
        """The version that a list would have now; hardly any object is sent for it."""
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
        """Changes since `version`, for `seconds` at most; entered once the API server has agreed to it.

        Raises `Gone`, at once or in the middle, if it does not remember that version, and `Unreachable` if it is silent
        beyond that time: what stands between us may keep a connection open whose other end is no more.
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
        """What the API server says of itself: `gitVersion`, `major`, `minor`."""
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
        raise Rejected(f"cannot {action}: what somebody wrote into it is nested too deep; delete the object") from None


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
        raise Unreachable(f"what answers is no API server, to {action}: {text[:80]!r}")
    return found


async def _events(response: httpx2.Response, action: Action) -> AsyncIterator[WatchEvent]:
    """One event a line. Lines end with a line feed and nothing else: values may hold other breaks."""
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
    """Turn what goes wrong below HTTP into the errors of this package."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise Unreachable(f"the API server did not answer in time, to {action}") from error
    except httpx2.TransportError as error:
        raise Unreachable(f"the API server cannot be reached, to {action}: {_reason(error)}") from error
    except ConfigError as error:
        raise Unauthorized(f"no token, to {action}: {error}") from error


def _reason(error: BaseException) -> str:
    """What the innermost cause says: the outer ones say only that all attempts failed."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return str(error) or type(error).__name__


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
