"""Leads requests of other domains to endpoints of this one that are registered in a third."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler


class RegisteredElsewhere(Element):
    """Send a request for an endpoint of this domain that is registered in another one to where it is.

    `elsewhere` has their URLs by the names that they have there; the endpoint sees these names.
    """

    def __init__(self, elsewhere: Mapping[str, str]) -> None:
        self._elsewhere = elsewhere

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the target."""
        call.target = self._elsewhere.get(call.connection.network_service_endpoint_name, call.target)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Set the target."""
        call.target = self._elsewhere.get(call.connection.network_service_endpoint_name, call.target)
        await rest.close(call)
