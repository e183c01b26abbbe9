"""Sets of networks: whether an address or a prefix is of one of them, in the same time however many there are."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .addresses import Address, Network, read_interface


class Networks:
    """Some networks. Asking is one look for each length of prefix that is there."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._by_length: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        self._listed = tuple(dict.fromkeys(networks))
        for network in self._listed:
            shift = network.max_prefixlen - network.prefixlen
            self._by_length[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)

    @classmethod
    def parse(cls, prefixes: Iterable[str]) -> Networks:
        """From texts. Raises ValueError for one that is no prefix."""
        found = []
        for text in prefixes:
            if (interface := read_interface(text)) is None:
                raise ValueError(f"{text[:64]!r} is no prefix; expected one such as 10.0.0.0/8 or fd00::/8")
            found.append(interface.network)
        return cls(found)

    @classmethod
    def of_all(cls, several: Iterable[Networks]) -> Networks:
        """What any of `several` has."""
        return cls(network for networks in several for network in networks._listed)

    def __bool__(self) -> bool:
        return bool(self._listed)

    @property
    def size(self) -> int:
        """How many addresses they have, those that are in two of them twice."""
        return sum(network.num_addresses for network in self._listed)

    def __str__(self) -> str:
        return ",".join(map(str, self._listed))

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        for shift, numbers in self._by_length[address.version].items():  # noqa: SIM110 - a generator costs twice as much
            if number >> shift in numbers:
                return True
        return False

    def cover(self, network: Network) -> bool:
        """Whether all of `network` is in one of these."""
        number, shortest = int(network.network_address), network.max_prefixlen - network.prefixlen
        for shift, numbers in self._by_length[network.version].items():
            if shift >= shortest and number >> shift in numbers:
                return True
        return False

    def around(self, address: Address) -> Networks:
        """Those of these that `address` is of; the default network is none of them."""
        return Networks(each for each in self._listed if each.prefixlen and address in each)

    def overlap(self, network: Network) -> bool:
        """Whether any of these has an address in common with `network`."""
        return self.cover(network) or any(
            each.version == network.version and each.overlaps(network) for each in self._listed
        )


NO_NETWORKS = Networks(())
EVERYTHING = Networks([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])
LOOPBACK = Networks([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
MULTICAST = Networks([ipaddress.ip_network("224.0.0.0/4"), ipaddress.ip_network("ff00::/8")])
UNSPECIFIED = Networks(
    [ipaddress.ip_network("0.0.0.0/8"), ipaddress.ip_network("::/128"), ipaddress.ip_network("255.255.255.255/32")]
)
"""What no host has: this network, the unspecified address, and everybody's (RFC 1122)."""
LINK_LOCAL = Networks([ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10")])
METADATA = Networks(
    [
        ipaddress.ip_network("169.254.169.0/24"),
        ipaddress.ip_network("169.254.170.0/24"),
        ipaddress.ip_network("fe80::/10"),
        ipaddress.ip_network("fd00:ec2::/32"),
    ]
)
"""Of link-local addresses, those at which clouds answer machines, and what IPv6 gives to each link itself."""


def host_fault(address: Address) -> str | None:
    """Why no end of a wire may have `address`, or None: not even an IPv4 link-local one, which endpoints do give."""
    if address not in _ANY_NO_HOST:
        return None
    return next(what for networks, what in _NO_HOST if address in networks)


def route_fault(network: Network) -> str | None:
    """Why no route of a wire may lead to `network`, or None: it is of a kind that is every machine's own.

    A default route, or another one that is wider than what is a machine's own, takes nothing from that.
    """
    if not _ANY_NO_ROUTE.cover(network):
        return None
    return next(what for networks, what in _NO_ROUTE if networks.cover(network))


_NO_HOST = (
    (LOOPBACK, "loopback"),
    (MULTICAST, "multicast"),
    (UNSPECIFIED, "of no host"),
    (METADATA, "link-local"),
)
_NO_ROUTE = (*_NO_HOST, (LINK_LOCAL, "link-local"))
_ANY_NO_HOST, _ANY_NO_ROUTE = (Networks.of_all(networks for networks, _ in each) for each in (_NO_HOST, _NO_ROUTE))
"""One look for what is nearly always neither; which of them it is matters only then."""
