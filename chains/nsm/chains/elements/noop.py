"""NOOP: an endpoint or a client that needs no interface from the mesh."""

from __future__ import annotations

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import LOCAL, NOOP, REMOTE
from nsm.chains.core import Call, Element, Handler


class OfferNoop(Element):
    """For a forwarder's client chain: offer the endpoint that nothing is made at its side, on whichever node it is."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preferences."""
        call.request.mechanism_preferences += [Mechanism(cls=cls, type=NOOP) for cls in (LOCAL, REMOTE)]
        return await rest.request(call)
