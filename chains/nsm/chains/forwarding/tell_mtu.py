"""Sends a tunnel's MTU with its offer."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import MTU
from nsm.chains.core import Call, Element, Handler
from nsm.chains.model.ipcontext import context_of


class TellMtu(Element):
    """For a forwarder's client chain: the endpoint receives the MTU with the first request.

    Offered tunnels have their MTU, and the connection's is lowered to it (0 means that it has none yet): a component
    that makes the endpoint's interface before answering, as upstream's forwarders do, could not know it before
    the first refresh. If the endpoint chooses something else, the connection's MTU is restored. Stands behind all
    offers; offers inside a node have no MTU, and nothing is changed there.
    """

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Lower the MTU on the way in; restore it if that was unnecessary."""
        offers = _offers(call)
        if not offers:
            return await rest.request(call)
        context = context_of(call.connection)
        before = context.mtu
        told = context.mtu = min(filter(None, (before, *offers.values())))
        connection = await rest.request(call)
        chosen, answered = connection.mechanism, context_of(connection)
        if chosen is not None and chosen.type not in offers and answered.mtu == told:
            answered.mtu = before
        return connection


def _offers(call: Call) -> dict[str, int]:
    """The MTU of each kind of tunnel that the call may get: any that is offered, or the existing one."""
    there = call.connection.mechanism
    return {
        each.type: int(each.parameters[MTU])
        for each in call.request.mechanism_preferences
        if each.parameters.get(MTU) and (there is None or there.type == each.type)
    }
