"""The tokens in a path: who was there, as each of them signed."""

from __future__ import annotations

from nsm.apis.connection import Connection, PathSegment
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Call, Element, Handler
from nsm.chains.identity import Identity


class UpdateToken(Element):
    """Put the caller's token into the caller's segment and a fresh one of our own, made for the caller, into ours."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Update both segments."""
        self._update(call)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Update both segments."""
        self._update(call)
        await rest.close(call)

    def _update(self, call: Call) -> None:
        path = call.connection.path
        if path is None or path.index >= len(path.path_segments):
            return
        if path.index > 0 and call.token is not None:
            _set(path.path_segments[path.index - 1], call.token.token, call.token.expires)
        own = self._identity.token(call.peer)
        _set(path.path_segments[path.index], own.token, own.expires)


def _set(segment: PathSegment, token: str, expires: Timestamp) -> None:
    segment.token, segment.expires = token, expires
