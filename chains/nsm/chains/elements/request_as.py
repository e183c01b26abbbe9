"""Requests the next service of a chain in the name of the endpoint that passes it on."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key


class RequestAs(Element):
    """For the client chain of a pass-through endpoint: request with its own labels, which choose the next endpoint.

    The next endpoint is requested again by its name. The caller gets its own labels back, and the name of this
    endpoint.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._next: Key[str] = Key("next endpoint")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Replace labels and endpoint, and restore them in the answer."""
        labels, endpoint = call.connection.labels, call.connection.network_service_endpoint_name
        self._translate(call)
        connection = await rest.request(call)
        call.live.put(self._next, connection.network_service_endpoint_name)
        connection.labels, connection.network_service_endpoint_name = labels, endpoint
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Close at the next endpoint."""
        self._translate(call)
        call.live.pop(self._next)
        await rest.close(call)

    def _translate(self, call: Call) -> None:
        call.connection.labels = dict(self._labels)
        call.connection.network_service_endpoint_name = call.live.get(self._next) or ""
