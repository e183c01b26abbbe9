"""Whom a client chain asks: a fixed peer, or whom an element before it chose."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key, MeshError
from nsm.chains.logs import log

from .monitor import DOWNSTREAM


class ClientUrl(Element):
    """Ask the component at a fixed URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the target."""
        call.target = self._url
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Set the target."""
        call.target = self._url
        await rest.close(call)


class Dial(Element):
    """Remember whom a connection was asked from; when somebody else is to be asked, close it at the former first."""

    def __init__(self) -> None:
        self._asked: Key[str] = Key("target")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Ask the call's target."""
        former = call.live.get(self._asked)
        if former is not None and call.target is not None and call.target != former:
            await self._leave(call, former, rest)
        connection = await rest.request(call)
        if call.target is not None:
            call.live.put(self._asked, call.target)
            call.live.put(DOWNSTREAM, call.target)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Close where the connection is: at the call's target if it has one, since who was asked may have moved."""
        call.live.pop(DOWNSTREAM)
        asked = call.live.pop(self._asked)
        call.target = call.target or asked
        await rest.close(call)

    async def _leave(self, call: Call, former: str, rest: Handler) -> None:
        call.live.pop(self._asked)
        closing = call.postponed()
        closing.target = former
        try:
            await rest.close(closing)
        except MeshError as error:
            log.warning("could not close at the former peer", connection=call.live.connection_id, error=str(error))
