"""Shared memory as a mechanism: a workload with a VPP, or a memif library, of its own (see docs/vpp.md)."""

from __future__ import annotations

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INODE_URL, LOCAL, MEMIF, SOCKET_FILE
from nsm.chains.core import Call, Element, Handler, InvalidRequest
from nsm.chains.forwarding.supported import Supported

from .names import id_in_tag


class MemifServer(Element):
    """For a forwarder's server chain: name the socket at which the client finds its end of the wire.

    It is an abstract socket in the client's own network namespace, which the client sends as a descriptor.
    """

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanism: the name is the connection's, whatever the request says."""
        mechanism = call.connection.mechanism
        assert mechanism is not None
        if not mechanism.parameters.get(INODE_URL):
            raise InvalidRequest("a MEMIF mechanism needs inodeURL: the network namespace of its workload")
        mechanism.parameters[SOCKET_FILE] = f"@/run/nsm/memif/{id_in_tag(call.live.connection_id)}/memif.socket"
        return await rest.request(call)


class OfferMemif(Element):
    """For a forwarder's client chain: offer the endpoint shared memory, by a socket that it names and listens at."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference, without a namespace: the socket is in the endpoint's."""
        call.request.mechanism_preferences.append(Mechanism(cls=LOCAL, type=MEMIF, parameters={INODE_URL: ""}))
        return await rest.request(call)


def memif() -> Supported:
    """MEMIF for a forwarder: towards clients and endpoints of its node."""
    return Supported(kind=MEMIF, served=[MemifServer()], offered=[OfferMemif()])
