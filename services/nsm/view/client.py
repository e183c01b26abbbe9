"""The client of a view, which any program can use.

async with ViewClient.connect("http://127.0.0.1:7410") as view:
    for wire in await view.wires(down=True):
        print(wire.client, wire.state, wire.cause)
    async for change in view.changes():
        ...
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from .model import Attempt, Change, Component, Domain, Endpoint, Event, Node, Service, Snapshot, Wire


class ViewClient:
    """A `Source` that reads a view over HTTP. All methods raise `MeshError`, such as `Unavailable`."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, *, token: str = "", tls: ssl.SSLContext | None = None, timeout: float = 5.0
    ) -> AsyncIterator[ViewClient]:
        """A client of the view at `url`: ``http://``, ``https://`` or ``unix:///PATH`` of its socket.

        `token` authenticates to a view that requires one; an answer may take `timeout` seconds.
        """
        yield cls()

    async def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        raise NotImplementedError

    async def wires(
        self, *, client: str = "", service: str = "", endpoint: str = "", node: str = "", down: bool = False
    ) -> Sequence[Wire]:
        """The wires that fit all that is given, ordered by client and interface; `down`: those that are not up."""
        raise NotImplementedError

    async def wire(self, name: str) -> Wire:
        """The wire `name`: its id or the unique beginning of it, or `client/interface`; raises `NotFound`."""
        raise NotImplementedError

    async def attempts(self) -> Sequence[Attempt]:
        """Wires that were requested and do not exist."""
        raise NotImplementedError

    async def services(self) -> Sequence[Service]:
        """All services."""
        raise NotImplementedError

    async def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints."""
        raise NotImplementedError

    async def components(self) -> Sequence[Component]:
        """Managers, forwarders, registries and proxies."""
        raise NotImplementedError

    async def nodes(self) -> Sequence[Node]:
        """All nodes."""
        raise NotImplementedError

    async def domains(self) -> Sequence[Domain]:
        """All domains."""
        raise NotImplementedError

    async def events(self, wire: str = "", *, after: int = 0) -> Sequence[Event]:
        """What occurred behind the event number `after`, oldest first; of one wire, if its id is given."""
        raise NotImplementedError

    def changes(self, position: str = "") -> AsyncIterator[Change]:
        """Every change behind `position`, endlessly. It begins with a snapshot, unless `position` is still known.

        A broken stream is opened again; if the view is gone for longer, `Unavailable` is raised.
        """
        raise NotImplementedError
