"""Translates the ends of tunnels between domains: their nodes may be behind NAT.

Both proxies of a connection translate the address of their own side's node. The original address stays beside it, so
that the node gets back what it sent. Facts of the wire: upstream's swapip elements.
"""

from __future__ import annotations

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import DST_IP, DST_ORIGINAL_IP, SRC_IP, SRC_ORIGINAL_IP
from nsm.chains.config.table import Table
from nsm.chains.core import Call, Element, Handler
from nsm.chains.core.named_files import mechanisms_of


class SwapServerAddresses(Element):
    """On the endpoint's side: let the node name its end anew, and answer with that end's outside address.

    An address that `table` does not list stays.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate the answer."""
        tunnels = [each for each in mechanisms_of(call.request) if each.parameters.get(SRC_ORIGINAL_IP)]
        if not tunnels:
            return await rest.request(call)
        for tunnel in tunnels:
            tunnel.parameters.pop(DST_IP, None)
            tunnel.parameters.pop(DST_ORIGINAL_IP, None)
        connection = await rest.request(call)
        if (parameters := _parameters(connection.mechanism)) and (inside := parameters.get(DST_IP)):
            parameters[DST_ORIGINAL_IP] = inside
            parameters[DST_IP] = self._table.value().get(inside, inside)
        return connection


class SwapClientAddresses(Element):
    """On the client's side, in the client chain: send the outside address of the node's end, and answer with its own.

    An address that `table` does not list stays.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate both ways; the connection's other side is left alone."""
        inside: dict[str, str] = {}
        for mechanism in mechanisms_of(call.request):
            parameters = mechanism.parameters
            if (own := parameters.get(SRC_IP)) and not parameters.get(SRC_ORIGINAL_IP):
                outside = self._table.value().get(own, own)
                parameters[SRC_IP], parameters[SRC_ORIGINAL_IP] = outside, own
                inside[outside] = own
        connection = await rest.request(call)
        if inside and (parameters := _parameters(connection.mechanism)) and SRC_IP in parameters:
            parameters.pop(SRC_ORIGINAL_IP, None)
            parameters[SRC_IP] = inside.get(parameters[SRC_IP], parameters[SRC_IP])
        return connection


def _parameters(mechanism: Mechanism | None) -> dict[str, str]:
    return mechanism.parameters if mechanism is not None else {}
