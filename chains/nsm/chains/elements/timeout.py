"""A connection that is not refreshed ends by itself."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, InvalidRequest, Key


class Timeout(Element):
    """Close the connection when the caller's token expires; each successful Request starts the clock anew.

    The moment is the `expires` of the path segment before this component's. Raises `InvalidRequest` if the caller's
    segment says none.
    """

    def __init__(self) -> None:
        self._timer: Key[None] = Key("expiry")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the rest answer, then set the clock."""
        expires = _callers_expiry(call.connection)
        connection = await rest.request(call)
        store = call.live
        when = asyncio.get_running_loop().time() + expires - time.time()
        store.schedule(self._timer, when, store.events.close)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Stop the clock; also if the Close fails, since Begin ends the connection in any case."""
        call.live.unschedule(self._timer)
        await rest.close(call)


def _callers_expiry(connection: Connection) -> float:
    """When the caller's token expires (seconds since the epoch)."""
    path = connection.path
    if path is None or not 0 < path.index < len(path.path_segments):
        raise InvalidRequest("the path has no segment of a caller before this component's")
    segment = path.path_segments[path.index - 1]
    if segment.expires is None:
        raise InvalidRequest(f"the path segment of {segment.name!r} does not say when its token expires")
    return segment.expires.to_seconds()
