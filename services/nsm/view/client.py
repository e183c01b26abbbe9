"""The client of a view, which any program can use.

async with ViewClient.connect("http://127.0.0.1:7410") as view:
    for wire in await view.wires(down=True):
        print(wire.client, wire.state, wire.cause)
    async for change in view.changes():
        ...
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

from nsm.chains.errors import Conflict, Internal, InvalidRequest, NotFound, Refused, Unavailable

from . import form
from .http import Answer, Http
from .model import Attempt, Change, Component, Domain, Endpoint, Event, Node, Service, Snapshot, Wire

T = TypeVar("T")
_PREFIX = "/api/v1"
_ERRORS = {400: InvalidRequest, 401: Refused, 403: Refused, 404: NotFound, 409: Conflict}
QUIET = 40.0
"""Seconds without a sign of life after which a stream counts as broken."""


class ViewClient:
    """A `Source` that reads a view over HTTP. All methods raise `MeshError`, such as `Unavailable`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, *, token: str = "", tls: ssl.SSLContext | None = None, timeout: float = 5.0
    ) -> AsyncIterator[ViewClient]:
        """A client of the view at `url`: ``http://``, ``https://`` or ``unix:///PATH`` of its socket.

        `token` authenticates to a view that requires one; an answer may take `timeout` seconds. Raises `InvalidRequest`
        for an invalid URL.
        """
        yield cls(Http(url, token=token, tls=tls, timeout=timeout))

    async def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        return _read(Snapshot, await self._get("snapshot"))

    async def wires(
        self, *, client: str = "", service: str = "", endpoint: str = "", node: str = "", down: bool = False
    ) -> Sequence[Wire]:
        """The wires that fit all that is given, ordered by client and interface; `down`: those that are not up."""
        asked = {"client": client, "service": service, "endpoint": endpoint, "node": node}
        return await self._list(Wire, "wires", **asked, down="true" if down else "")

    async def wire(self, name: str) -> Wire:
        """The wire `name`: its id or the unique beginning of it, or `client/interface`.

        Raises `NotFound`, and `Conflict` if it names several.
        """
        return _read(Wire, await self._get(f"wires/{quote(name)}"))

    async def attempts(self) -> Sequence[Attempt]:
        """Wires that were requested and do not exist."""
        return await self._list(Attempt, "attempts")

    async def services(self) -> Sequence[Service]:
        """All services."""
        return await self._list(Service, "services")

    async def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints."""
        return await self._list(Endpoint, "endpoints")

    async def components(self) -> Sequence[Component]:
        """Managers, forwarders, registries and proxies."""
        return await self._list(Component, "components")

    async def nodes(self) -> Sequence[Node]:
        """All nodes."""
        return await self._list(Node, "nodes")

    async def domains(self) -> Sequence[Domain]:
        """All domains."""
        return await self._list(Domain, "domains")

    async def events(self, wire: str = "", *, after: int = 0) -> Sequence[Event]:
        """What occurred behind the event number `after`, oldest first; of one wire, if its id is given."""
        return await self._list(Event, "events", wire=wire, after=str(after) if after else "")

    async def changes(self, position: str = "") -> AsyncIterator[Change]:
        """Every change behind `position`, endlessly. It begins with a snapshot, unless `position` is still known.

        A stream that breaks after its first change is opened again, once; if the view is gone, `Unavailable` is raised.
        """
        while True:
            is_open = False
            try:
                async with aclosing(cast(Any, self._stream(position))) as changes:
                    async for change in changes:
                        is_open, position = True, change.position
                        yield change
                raise Unavailable("the view ended the stream")
            except Unavailable:
                if not is_open:
                    raise

    async def _stream(self, position: str) -> AsyncIterator[Change]:
        path = f"{_PREFIX}/stream" + (f"?{urlencode({'after': position})}" if position else "")
        async with self._http.get(path, quiet=QUIET) as answer:
            await _check(answer)
            data: list[str] = []
            async for line in answer.lines():
                name, _, value = line.partition(":")
                if name == "data":
                    data.append(value.removeprefix(" "))
                elif not line and data:
                    yield _read(Change, _parsed("\n".join(data)))
                    data.clear()

    async def _list(self, kind: type[T], path: str, **query: str) -> Sequence[T]:
        asked = {name: value for name, value in query.items() if value}
        found = await self._get(path + (f"?{urlencode(asked)}" if asked else ""))
        if not isinstance(found, list):
            raise Internal("the view's answer is no list; is that the URL of a view?")
        return tuple(_read(kind, each) for each in found)

    async def _get(self, path: str) -> Any:
        async with self._http.get(f"{_PREFIX}/{path}") as answer:
            await _check(answer)
            return _parsed(await answer.text())


async def _check(answer: Answer) -> None:
    if answer.status == 200:
        return
    text = await answer.text()
    try:
        told = json.loads(text)["error"]
    except (ValueError, TypeError, KeyError):
        told = text[:200] or "no reason"
    raise _ERRORS.get(answer.status, Internal)(f"the view answered with {answer.status}: {told}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Internal("the view's answer is not JSON; is that the URL of a view?") from None


def _read(kind: type[T], value: Any) -> T:
    try:
        return form.from_json(kind, value)
    except ValueError as error:
        raise Internal(f"the view answered with something else: {error}; is it of another version?") from None
