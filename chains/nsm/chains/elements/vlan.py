"""For endpoints without a dataplane: they name the VLAN in which a client finds the service."""

from __future__ import annotations

from collections.abc import Iterable

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import VLAN, VLAN_ID
from nsm.chains.core import Call, Element, Handler, NotFound
from nsm.chains.model.vlans import VlanService

VIA = "via"
"""The label by which a node chooses one of its uplinks."""


class VlanServer(Element):
    """Give every client the VLAN, and the uplink, of the network service that it requests.

    The client's node puts an interface there, at the uplink with the label `via`; values from the client are
    ignored. Raises `NotFound` for a service that is not in `services`.
    """

    def __init__(self, services: Iterable[VlanService]) -> None:
        self._services = {service.name: service for service in services}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the chosen mechanism, and label the connection."""
        name, mechanism = call.connection.network_service, call.connection.mechanism
        if (service := self._services.get(name)) is None:
            known = ", ".join(map(repr, self._services)) or "none"
            raise NotFound(f"network service {name!r} is not provided here; available: {known}")
        if mechanism is not None and mechanism.type == VLAN:
            mechanism.parameters[VLAN_ID] = str(service.vlan)
            call.connection.labels[VIA] = service.via
        return await rest.request(call)
