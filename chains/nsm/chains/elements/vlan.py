"""For endpoints without a dataplane: they say in which VLAN a client finds the service."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import VLAN, VLAN_ID
from nsm.chains.core import Call, Element, Handler


class VlanServer(Element):
    """Give every client the same VLAN id, from 1 to 4094, or 0 for frames without a tag.

    The client's node puts an interface into that VLAN of one of its own uplinks. Raises ValueError for another id.
    """

    def __init__(self, vlan: int) -> None:
        if not 0 <= vlan <= 4094:
            raise ValueError(f"{vlan} is no VLAN id; expected 1 to 4094, or 0 for frames without a tag")
        self._vlan = str(vlan)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanism that was chosen."""
        mechanism = call.connection.mechanism
        if mechanism is not None and mechanism.type == VLAN:
            mechanism.parameters[VLAN_ID] = self._vlan
        return await rest.request(call)
