"""Several dataplanes in one forwarder: what an endpoint is offered depends on the client's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, bind

from .sides import CLIENT_SIDE, Side


class ForClients(Element):
    """For a forwarder's client chain: `offers` are elements for clients whose side `fits`; calls of others pass them.

    Without it an endpoint could choose a mechanism that cannot be joined to what the client has.
    """

    def __init__(self, fits: Callable[[Side], bool], offers: Sequence[Element]) -> None:
        self._fits, self._offers = fits, offers
        self._bound: Handler | None = None

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Through the offers, or past them."""
        side = call.live.get(CLIENT_SIDE)
        return await (self._handler(rest) if side is not None and self._fits(side) else rest).request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Through the offers, whatever they may have; past them if it is known that they have nothing."""
        side = call.live.get(CLIENT_SIDE)
        await (self._handler(rest) if side is None or self._fits(side) else rest).close(call)

    async def aclose(self) -> None:
        """Release the offers."""
        for element in reversed(self._offers):
            await element.aclose()

    def _handler(self, rest: Handler) -> Handler:
        """The offers, bound to the rest of the chain at their first use; that never changes."""
        if self._bound is None:
            self._bound = bind(self._offers, rest)
        return self._bound
