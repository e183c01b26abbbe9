"""Refuses to call oneself: a domain may resolve to the one that asks for it."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.config.table import Table, outside
from nsm.chains.core import Call, Element, Handler, InvalidRequest
from nsm.chains.model.domains import split


class NotBack(Element):
    """Refuse a request whose target is `own_url`, or that URL as other domains know it by `table`: it would come back.

    Place it behind what sets the target. Raises `InvalidRequest` that says how to name the service.
    """

    def __init__(self, own_url: str, table: Table) -> None:
        self._own_url, self._table = own_url, table

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the target."""
        if call.target in (self._own_url, outside(self._own_url, self._table)):
            service, domain = split(call.connection.network_service)
            raise InvalidRequest(
                f"{call.connection.network_service!r} leads back here: domain {domain!r} is this one, "
                f"or its endpoint {call.connection.network_service_endpoint_name!r} of this domain is not registered "
                f"there anew yet; inside a domain, request {service!r}"
            )
        return await rest.request(call)
