"""Keeps paths that a caller names out of a server's chain."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler
from nsm.chains.core.named_files import refuse_paths


class RefusePaths(Element):
    """Raise `Refused` for a request that names a file by its path: see `nsm.chains.core.named_files`."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check a peer's request; a Close has lost its paths in the transport."""
        if call.peer is not None:
            refuse_paths(call.request, "the caller's")
        return await rest.request(call)
