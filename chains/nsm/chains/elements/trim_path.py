"""Ends the path at an endpoint: segments of an earlier, longer path are cut off."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler


class TrimPath(Element):
    """Cut the path behind this component's segment, unless a client chain went on behind this element."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Cut stale segments from the returned connection."""
        own = call.connection.path.index if call.connection.path is not None else 0
        connection = await rest.request(call)
        if not call.continued and connection.path is not None:
            del connection.path.path_segments[own + 1 :]
        return connection
