"""Who may name the other end of a tunnel: components that the mesh trusts, and no workload.

A VXLAN device accepts frames from everyone who knows its number, so a workload that could have a tunnel made to
another node, with a number of its choice, could send into other clients' wires there. Only forwarders name nodes and
numbers to each other, through their managers. Without a list of intermediaries, no peer can be told from another.
"""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import IPSEC, VXLAN, WIREGUARD
from nsm.chains.core import Call, Element, Handler, Refused
from nsm.chains.policy import Trust, claims_of

_TUNNELS = frozenset({VXLAN, WIREGUARD, IPSEC})
_HINT = "which is for forwarders and managers; NSM_INTERMEDIARIES lists who they are"


class AskedByForwarders(Element):
    """For the elements of a tunnel's mechanism in a forwarder's server chain: refuse one that a workload requests.

    It may pass a manager: both the caller and its caller have to be intermediaries. Raises `Refused`.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the caller."""
        if self._trust.has_vouchers() and (who := self._stranger(call)) is not None:
            raise Refused(f"{who} may not name the other end of a tunnel, {_HINT}")
        return await rest.request(call)

    def _stranger(self, call: Call) -> str | None:
        if call.peer is None:
            return None
        if not self._trust.matches(call.peer.spiffe_id):
            return call.peer.spiffe_id
        path = call.connection.path
        if path is None or path.index < 2:
            return None
        claims = claims_of(path.path_segments[path.index - 2].token)
        who = claims.subject if claims is not None else ""
        return None if self._trust.matches(who) else who or "nobody"


class AnsweredByManagers(Element):
    """For a forwarder's client chain: refuse the answer of an endpoint that names the end of a tunnel.

    Stands behind the offers. Raises `Refused`; the connection at the components behind is closed.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the component that answered."""
        connection = await rest.request(call)
        chosen, peer = connection.mechanism, call.server_peer
        if (
            chosen is not None
            and chosen.type in _TUNNELS
            and peer is not None
            and self._trust.has_vouchers()
            and not self._trust.matches(peer.spiffe_id)
        ):
            raise Refused(f"{peer.spiffe_id} may not name the other end of a tunnel, {_HINT}")
        return connection
