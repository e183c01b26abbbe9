"""A network that is cut into prefixes of one length."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from nsm.chains.model.addresses import Network


class PrefixSpace:
    """A network, of which prefixes of `length` are handed out, the lowest free one first.

    Raises ValueError for a length that does not fit the network.
    """

    def __init__(self, network: Network, length: int) -> None:
        if not network.prefixlen <= length <= network.max_prefixlen:
            raise ValueError(
                f"prefixes of length {length} do not fit into {network}: "
                f"expected {network.prefixlen} to {network.max_prefixlen}"
            )
        self.network, self.length = network, length

    def __str__(self) -> str:
        return str(self.network)

    @property
    def size(self) -> int:
        """The number of prefixes."""
        return 1 << (self.length - self.network.prefixlen)

    def holds(self, network: Network) -> bool:
        """Whether `network` could have been handed out: it lies in this network, and is not larger than a prefix."""
        return (
            network.version == self.network.version
            and network.prefixlen >= self.length
            and network.subnet_of(self.network)  # type: ignore[arg-type]  # of one version
        )

    def lowest(self, taken: Iterable[Network]) -> Network | None:
        """The lowest prefix that shares no address with any of `taken`; None if there is none."""
        step = 1 << (self.network.max_prefixlen - self.length)
        first, last = _span(self.network)
        candidate = first
        for low, high in sorted(_span(each) for each in taken if each.version == self.network.version):
            if low > candidate + step - 1:
                break
            if high >= candidate:
                candidate = first + -(-(high + 1 - first) // step) * step
        if candidate + step - 1 > last:
            return None
        return ipaddress.ip_network((candidate, self.length))


def _span(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)
