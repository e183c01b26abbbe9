"""What all kinds of devices have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import Link, LinkEnd, Namespace, NetlinkError
from nsm.forwarder_kernel.wireguard_go import Process


class Device:
    """The device of a wire on this node. Made for one wire; all but `end` runs in the kernel's thread."""

    tells_carrier = False
    """Whether the kernel reports when a device of this kind starts to pass packets; others do at once."""
    ends_together = True
    """Whether the kernel removes all of its ends with any of them."""
    process: Process | None = None
    """The process that provides the device, and ends it, instead of the kernel."""

    def take(self, own: Namespace) -> None:
        """Prepare the node's namespace; undone by `give`. Raises `Conflict` or `Unsupported`."""

    def give(self, own: Namespace) -> None:
        """Release the preparations."""

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Make it where its ends are, down; `target` is the first one's place, `own` the node's namespace.

        Raises `NetlinkError`; nothing is left then.
        """
        raise NotImplementedError

    def prepare(self, target: Namespace, wire: Wire, index: int) -> None:
        """Configure a new device before it is set up."""

    def mac(self, alias: str, side: int) -> str:
        """The hardware address of its end number `side`: always the same; empty for kinds without.

        The other end remembers it, and would send to the old one for half a minute.
        """
        return mac_of(alias, str(side))

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether existing links are what `make` would make, except for their settings."""
        raise NotImplementedError

    def explain_refusal(self, error: NetlinkError) -> None:
        """Raise the reason of a refused creation if it is specific to the kind; the name is free."""

    def explain_down(self, error: NetlinkError) -> None:
        """Raise why a device cannot be set up if that is specific to the kind."""

    def last_handshake(self, target: Namespace, index: int) -> int:
        """When it last completed a handshake with its peer (Unix time, seconds); 0: not yet."""
        raise NotImplementedError

    def metrics(self) -> Mapping[str, str]:
        """What the path segment says of it at each request, such as `client_rx_bytes`."""
        return {}

    @property
    def in_node(self) -> Sequence[int]:
        """The indexes of links in the node's namespace that are removed instead of its ends, which end with them."""
        return ()

    @property
    def index(self) -> int | None:
        """The index that its first end has; None: it may be chosen."""
        return None


def mac_of(*names: str) -> str:
    """A locally administered unicast address, for the same names the same."""
    octets = bytearray(hashlib.blake2b("\n".join(names).encode(), digest_size=6).digest())
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")
