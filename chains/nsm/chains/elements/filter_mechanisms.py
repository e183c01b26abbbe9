"""Offers an endpoint only the mechanisms that can reach it."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import LOCAL, REMOTE
from nsm.chains.core import Call, Element, Handler, Unsupported

_REMEDIES = {
    LOCAL: "the forwarder and the endpoint's node need a mechanism in common",
    REMOTE: "give the forwarders of both nodes a tunnel address (NSM_TUNNEL_IP)",
}


class FilterMechanisms(Element):
    """For a forwarder's client chain: LOCAL mechanisms for a peer on a unix socket, REMOTE ones for any other.

    Raises `Unsupported` if nothing is left to offer for a new connection; `hint` tells the forwarder's operator
    what to do if there are no REMOTE ones.
    """

    def __init__(self, hint: str = "") -> None:
        self._hint = f"; {hint}" if hint else ""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Drop the preferences of the other class."""
        wanted = LOCAL if is_on_this_node(call) else REMOTE
        preferences = call.request.mechanism_preferences
        call.request.mechanism_preferences = [each for each in preferences if each.cls == wanted]
        if not call.request.mechanism_preferences and call.connection.mechanism is None:
            raise Unsupported(self._nothing(wanted, call.connection.payload), remedy=_REMEDIES[wanted])
        return await rest.request(call)

    def _nothing(self, wanted: str, payload: str) -> str:
        if wanted == LOCAL:
            return "there is no mechanism to offer inside the node"
        return f"there is no mechanism to offer to another node for payload {payload}{self._hint}"


def is_on_this_node(call: Call) -> bool:
    """Whether the call's target is reached through a unix socket, and so by LOCAL mechanisms."""
    return (call.target or "").startswith(("unix:", "inode:"))
