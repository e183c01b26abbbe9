"""A breakout: an interface on an uplink of the node, whose other side is the network behind that."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.forwarding.sides import Breakout
from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import Link, LinkEnd, Namespace, create_macvlan
from nsm.forwarder_kernel.tagged_links import TaggedLinks

from .device import Device


class Macvlan(Device):
    """A macvlan on the uplink, or on the uplink's sub-interface of a tag."""

    tells_carrier = True

    def __init__(self, tunnel: Breakout, tagged: TaggedLinks) -> None:
        self._tunnel, self._tagged = tunnel, tagged
        self._lower = 0

    def take(self, own: Namespace) -> None:
        """The link that it is on."""
        self._lower = self._tagged.take(own, self._tunnel)

    def give(self, own: Namespace) -> None:
        """A sub-interface is removed with its last user."""
        self._tagged.give(own, self._tunnel)

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Make the device."""
        own.socket.apply([create_macvlan(ends[0], self._lower, mtu=wire.mtu)])

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether it is on the same link."""
        return there[0].kind == "macvlan" and there[0].lower == self._lower
