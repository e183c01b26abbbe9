"""Translates the names that other domains use for this domain's services and endpoints."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import SRC_ORIGINAL_IP
from nsm.chains.core import Call, Element, Handler
from nsm.chains.core.named_files import mechanisms_of
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.model.domains import AT, join, split


class OwnNames(Element):
    """Take the domain off the names in a call from another domain, and put it back into the answer.

    A call comes from another domain if its caller is of another trust domain, or if a proxy has translated the address
    in one of its mechanisms. A call that already has a target keeps its names.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Translate both ways."""
        asked = call.connection
        service, endpoint = asked.network_service, asked.network_service_endpoint_name
        if not self._translate(call):
            return await rest.request(call)
        connection = await rest.request(call)
        found = connection.network_service_endpoint_name
        connection.network_service = service
        domain = split(service)[1] or split(endpoint)[1]
        connection.network_service_endpoint_name = endpoint if split(endpoint)[0] == found else join(found, domain)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Translate the names."""
        self._translate(call)
        await rest.close(call)

    def _translate(self, call: Call) -> bool:
        connection = call.connection
        names = connection.network_service, connection.network_service_endpoint_name
        if call.target is not None or not any(AT in name for name in names) or not self._is_from_elsewhere(call):
            return False
        connection.network_service, connection.network_service_endpoint_name = (split(name)[0] for name in names)
        return True

    def _is_from_elsewhere(self, call: Call) -> bool:
        if call.peer is not None and trust_domain_of(call.peer.spiffe_id) != trust_domain_of(self._identity.spiffe_id):
            return True
        return any(each.parameters.get(SRC_ORIGINAL_IP) for each in mechanisms_of(call.request))
