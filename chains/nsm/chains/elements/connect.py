"""Continue a server's chain with a client chain: what makes a component pass a request on."""

from __future__ import annotations

import re

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import TRANSPORT, Call, Element, Handler, Key, Unavailable
from nsm.chains.logs import log

_NOT_REACHED = re.compile(r"(cannot reach \S+): ")


class Connect(Element):
    """Ask `client` first and let the rest of the server's chain work on what it returned.

    The client chain's call is one of its own (`Call.onward`). If the rest of the server's chain, or anything that
    stands before this element, then fails, the connection that `client` made is closed again; not one that stood there
    before, for a component that was started since. A Close of a connection that is not known here is passed on if its
    path names a component behind this one.
    """

    def __init__(self, client: Handler) -> None:
        self._client = client
        self._open: Key[bool] = Key("connected")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Request from the client chain, then from the rest."""
        call.continued, stood = True, call.stood_behind()
        connection = await self._ask(call.onward())
        if call.live.get(self._open) is None and not stood.goes_on(connection):
            call.undo.add(lambda: self._close_again(call, connection))
        call.live.put(self._open, True)
        call.connection = connection
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Close both; raises what the client chain raised if the rest of the server's chain is fine."""
        try:
            if call.live.pop(self._open) or (call.is_unknown and call.stood_behind()):
                await self._tell(call.onward())
        finally:
            await rest.close(call)

    async def _ask(self, onward: Call) -> Connection:
        try:
            return await self._client.request(onward)
        except Unavailable as error:
            _keep_the_reason(error)
            raise

    async def _tell(self, onward: Call) -> None:
        try:
            await self._client.close(onward)
        except Unavailable as error:
            _keep_the_reason(error)
            raise

    async def _close_again(self, call: Call, connection: Connection) -> None:
        call.live.pop(self._open)
        closing = call.postponed()
        closing.connection = codec.clone(connection)
        await self._client.close(closing)


def _keep_the_reason(error: Unavailable) -> None:
    """Leave out why somebody could not be reached: others choose who is asked, and would learn what listens where."""
    reached = _NOT_REACHED.match(error.detail)
    if reached is not None and error.element == TRANSPORT and not error.hops:
        log.info("a peer cannot be reached", reason=error.detail)
        error.detail = reached[1]
