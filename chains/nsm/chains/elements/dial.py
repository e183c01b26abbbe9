"""Chooses the peer of a client chain: a fixed one, or the one that an element before it chose."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key, MeshError
from nsm.chains.logs import log

from .monitor import DOWNSTREAM, UNHEARD


class ClientUrl(Element):
    """Request from the component at a fixed URL."""

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
    """Remember the peer of a connection; before another one is used, close the connection at the former.

    If the former is unresponsive and the endpoint is the same, it was restarted: the request goes to its current
    address, and asks it to keep the connection.
    """

    def __init__(self) -> None:
        self._asked: Key[tuple[str, str]] = Key("target and endpoint")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Request from the call's target."""
        if call.target is not None and self._has_moved(call, call.target):
            await self._leave(call, rest)
        connection = await rest.request(call)
        if call.target is not None:
            call.live.put(self._asked, (call.target, connection.network_service_endpoint_name))
            call.live.put(DOWNSTREAM, call.target)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Close at the connection's peer: the call's target if it has one, since the peer may have moved."""
        call.live.pop(DOWNSTREAM)
        asked = call.live.pop(self._asked)
        call.target = call.target or (asked and asked[0])
        if call.target is None and call.is_unknown:
            log.info("closing without the next component of the path", connection=call.live.connection_id)
            return
        await rest.close(call)

    def _has_moved(self, call: Call, target: str) -> bool:
        """Whether the connection is at another peer, and has to be closed there."""
        former, endpoint = call.live.get(self._asked) or (target, "")
        came_back = call.live.get(UNHEARD) == former and endpoint == call.connection.network_service_endpoint_name
        return former != target and not came_back

    async def _leave(self, call: Call, rest: Handler) -> None:
        asked = call.live.pop(self._asked)
        assert asked is not None
        closing = call.postponed()
        closing.target, _ = asked
        try:
            await rest.close(closing)
        except MeshError as error:
            log.warning("could not close at the former peer", connection=call.live.connection_id, error=str(error))
