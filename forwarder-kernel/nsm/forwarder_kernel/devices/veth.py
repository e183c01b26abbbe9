"""A wire inside the node: a veth pair from the client to the endpoint, without a hop between them."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import Link, LinkEnd, Namespace, create_veth

from .device import Device


class Veth(Device):
    """A pair."""

    tells_carrier = True

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Make both ends at once."""
        own.socket.apply([create_veth(ends[0], ends[1], mtu=wire.mtu, arp=wire.arp)])

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Two that belong together have the same alias; names and aliases are all that counts."""
        return all(link.kind == "veth" for link in there)
