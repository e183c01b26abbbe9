"""Limits the routes that a client, or its manager, accepts from endpoints."""

from __future__ import annotations

from collections.abc import Callable

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, MeshError, Refused, shielded
from nsm.chains.logs import log
from nsm.chains.model import reach
from nsm.chains.model.networks import EVERYTHING, NO_NETWORKS, Networks


def nowhere() -> Networks:
    """The networks of a process that is on none that matter."""
    return NO_NETWORKS


class AcceptRoutes(Element):
    """Accept an answer only if everything that the client's end would reach by the wire is in the `accepted` networks.

    Networks that every machine has for itself (loopback, multicast, link-local but the wire's own IPv4 addresses) and
    networks of `underlay` are never accepted; a wider route, such as the default route, takes nothing from them. If not
    accepted, the connection is closed, since its wire already exists. Raises `Refused` that names the route and the
    variable.
    """

    def __init__(self, accepted: Networks = EVERYTHING, underlay: Callable[[], Networks] = nowhere) -> None:
        self._accepted, self._underlay = accepted, underlay

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the answer."""
        connection = await rest.request(call)
        if (fault := self._fault(connection)) is not None:
            closing = call.postponed()
            closing.connection = codec.clone(connection)
            await shielded(_close(closing, rest), name="close of a wire whose routes are not accepted")
            endpoint = connection.network_service_endpoint_name or "the endpoint"
            what = f"the answer of {endpoint} is not accepted here: {fault}; NSM_ACCEPT_ROUTES lists what is"
            raise Refused(what, remedy="change the endpoint's routes, or the manager's NSM_ACCEPT_ROUTES")
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
