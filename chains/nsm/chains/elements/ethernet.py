"""For endpoints in a network that virtual functions share: they name their MAC, and the VLAN of a service."""

from __future__ import annotations

from collections.abc import Iterable

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, EthernetContext
from nsm.chains.core import Call, Element, Handler, NotFound
from nsm.chains.model.ethernet_services import EthernetService


class EthernetServer(Element):
    """Tell every client the MAC by which it reaches the endpoint, and give it the VLAN of the service that it requests.

    The client's node puts its virtual function into that VLAN; a VLAN from the client is ignored. Raises `NotFound` for
    a service that is not in `services`.
    """

    def __init__(self, services: Iterable[EthernetService]) -> None:
        self._services = {service.name: service for service in services}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the ethernet context."""
        connection = call.connection
        if (service := self._services.get(connection.network_service)) is None:
            known = ", ".join(map(repr, self._services)) or "none"
            raise NotFound(f"network service {connection.network_service!r} is not provided here; available: {known}")
        context = connection.context = connection.context or ConnectionContext()
        ethernet = context.ethernet_context = context.ethernet_context or EthernetContext()
        ethernet.dst_mac, ethernet.vlan_tag = service.mac, service.vlan
        return await rest.request(call)
