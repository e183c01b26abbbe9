"""Keeps wires from taking over networks of the node or of every machine."""

from __future__ import annotations

from collections.abc import Callable

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext
from nsm.apis.mechanisms import VLAN
from nsm.chains.core import Call, Element, Handler, Refused
from nsm.chains.elements.accept_routes import nowhere
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.underlay import Underlay
from nsm.chains.model import reach
from nsm.chains.model.addresses import Address
from nsm.chains.model.networks import NO_NETWORKS, Networks

from .wires import Settings


class ProtectNode(Element):
    """Refuse an answer by which an end would reach loopback, multicast, link-local or the node's underlay by its wire.

    The wire's own IPv4 link-local addresses are fine, and those of the underlay for a breakout: it may be on that very
    network. Stands before the element that requests from the endpoint and behind the one that makes the wire, which is
    neither made nor changed then. Raises `Refused` that names the network.
    """

    def __init__(self, underlay: Callable[[], Networks], far_side: MechanismTranslation) -> None:
        self._underlay, self._far_side = underlay, far_side

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the answer."""
        connection = await rest.request(call)
        context = connection.context.ip_context if connection.context is not None else None
        if context is not None and (fault := self._fault(call, context)) is not None:
            what = f"this wire would take over addresses outside the mesh: {fault}"
            raise Refused(what, remedy="give the endpoint prefixes and routes that are not the nodes' own")
        return connection

    def _fault(self, call: Call, context: IpContext) -> str | None:
        far = self._far_side.far_side(call)
        never = NO_NETWORKS if far is not None and far.type == VLAN else self._underlay()
        return reach.client_fault(context, never=never) or reach.endpoint_fault(context, never=never)


def check_own_namespace(settings: Settings, node: Networks) -> None:
    """Raise `Refused` if an end in the node's own namespace would take over any of the networks of `node`."""
    reached = [*(address.network for address in settings.addresses), *(prefix for prefix, _ in settings.routes)]
    for network in reached:
        if not network.prefixlen or node.overlap(network):
            raise Refused(f"{network} would cut the node off: the wire's end is in the node's own network namespace")


def underlay_of(tunnel_ip: Address | None) -> Callable[[], Networks]:
    """The networks of the interface that has `tunnel_ip`; none without one."""
    return nowhere if tunnel_ip is None else Underlay(around=tunnel_ip)
