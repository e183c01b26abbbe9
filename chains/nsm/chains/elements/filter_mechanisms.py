"""Offers an endpoint only the mechanisms that can reach it."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import LOCAL, REMOTE
from nsm.chains.core import Call, Element, Handler


class FilterMechanisms(Element):
    """For a forwarder's client chain: LOCAL mechanisms for a peer on a unix socket, REMOTE ones for any other."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Drop the preferences of the other class."""
        wanted = LOCAL if is_on_this_node(call) else REMOTE
        preferences = call.request.mechanism_preferences
        call.request.mechanism_preferences = [each for each in preferences if each.cls == wanted]
        return await rest.request(call)


def is_on_this_node(call: Call) -> bool:
    """Whether whom the call asks is reached through a unix socket, and so by LOCAL mechanisms."""
    return (call.target or "").startswith(("unix:", "inode:"))
