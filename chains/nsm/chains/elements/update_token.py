"""The tokens in a path, each signed by its component."""

from __future__ import annotations

from nsm.apis.connection import Connection, PathSegment
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Call, Element, Handler
from nsm.chains.identity import Identity
from nsm.chains.policy import claims_of, latest_expiry


class UpdateToken(Element):
    """Put the caller's token into the caller's segment and a fresh one of our own, made for the caller, into ours.

    The next component replaces the latter by the one that it received. That was signed for another connection than the
    caller's: if our identity was renewed in between, the caller gets one that is signed with the key that it knows.

    The caller's token expires when the token itself says, no later than its certificate and than our own tokens would:
    metadata can only make it earlier.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Update both segments."""
        self._update(call)
        connection = await rest.request(call)
        if self._identity.has_rotated_since(call.peer):
            self._sign_again(call, connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Update both segments."""
        self._update(call)
        await rest.close(call)

    def _update(self, call: Call) -> None:
        path = call.connection.path
        if path is None or path.index >= len(path.path_segments):
            return
        if path.index > 0:
            self._update_callers(call, path.path_segments[path.index - 1])
        own = self._identity.token(call.peer)
        _set(path.path_segments[path.index], own.token, own.expires)

    def _update_callers(self, call: Call, segment: PathSegment) -> None:
        if call.token is not None:
            _set(segment, call.token.token, call.token.expires)
        if segment.expires is not None:
            latest = latest_expiry(segment.token, call.peer, self._identity.token_lifetime)
            if segment.expires.to_seconds() > latest:
                segment.expires = Timestamp.from_seconds(latest)

    def _sign_again(self, call: Call, connection: Connection) -> None:
        path = connection.path
        if path is None or path.index + 1 >= len(path.path_segments):
            return
        claims = claims_of(path.path_segments[path.index + 1].token)
        own = self._identity.token(call.peer, audience=claims.subject if claims else "")
        _set(path.path_segments[path.index], own.token, own.expires)


def _set(segment: PathSegment, token: str, expires: Timestamp) -> None:
    segment.token, segment.expires = token, expires
