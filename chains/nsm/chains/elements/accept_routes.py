"""What an endpoint may take over of a client's network: what the client, or its manager, accepts."""

from __future__ import annotations

from collections.abc import Callable

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, MeshError, Refused, shielded
from nsm.chains.logs import log
from nsm.chains.model import reach
from nsm.chains.model.networks import EVERYTHING, NO_NETWORKS, Networks


def nowhere() -> Networks:
    """The networks of who is on none that matter."""
    return NO_NETWORKS


class AcceptRoutes(Element):
    """Take an answer only if all that the client's end would reach by the wire is of the `accepted` networks.

    What is every machine's own (loopback, multicast, link-local but for the wire's own IPv4 addresses) and networks of
    `underlay` are never taken; a wider route, such as the default one, takes nothing of them. The connection is closed
    otherwise, since its wire is there already. Raises `Refused` that names what was given, and the variable.
    """

    def __init__(self, accepted: Networks = EVERYTHING, underlay: Callable[[], Networks] = nowhere) -> None:
        self._accepted, self._underlay = accepted, underlay

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look at what comes back."""
        connection = await rest.request(call)
        if (fault := self._fault(connection)) is not None:
            closing = call.postponed()
            closing.connection = codec.clone(connection)
            await shielded(_close(closing, rest), name="close of a wire whose routes are not accepted")
            endpoint = connection.network_service_endpoint_name or "the endpoint"
            raise Refused(f"what {endpoint} gave is not accepted here: {fault}; NSM_ACCEPT_ROUTES says what is")
        return connection

    def _fault(self, connection: Connection) -> str | None:
        context = connection.context.ip_context if connection.context is not None else None
        if context is None:
            return None
        never = self._underlay()
        found = reach.client_fault(context, accepted=self._accepted, never=never)
        return found or reach.policy_fault(context.policies, never)


async def _close(call: Call, rest: Handler) -> None:
    try:
        await rest.close(call)
    except MeshError as error:
        log.warning("could not close a wire whose routes are not accepted", error=str(error))
