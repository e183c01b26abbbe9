"""Sets of networks, with lookups of addresses and prefixes in constant time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .addresses import Address, Network, read_interface


class Networks:
    """A set of networks. A lookup takes one step for each prefix length in the set."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._by_length: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        self._listed = tuple(dict.fromkeys(networks))
        for network in self._listed:
            shift = network.max_prefixlen - network.prefixlen
            self._by_length[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)

    @classmethod
    def parse(cls, prefixes: Iterable[str]) -> Networks:
        """From texts. Raises ValueError if one is not a prefix."""
        found = []
        for text in prefixes:
            if (interface := read_interface(text)) is None:
                raise ValueError(f"{text[:64]!r} is not a prefix; expected one such as 10.0.0.0/8 or fd00::/8")
            found.append(interface.network)
        return cls(found)

    @classmethod
    def of_all(cls, several: Iterable[Networks]) -> Networks:
        """The union of `several`."""
        return cls(network for networks in several for network in networks._listed)

    def __bool__(self) -> bool:
        return bool(self._listed)

    @property
    def listed(self) -> tuple[Network, ...]:
        """The networks, in their order."""
        return self._listed

    @property
    def size(self) -> int:
        """The number of addresses; one that is in two of the networks counts twice."""
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
        """Whether one of these networks contains all of `network`."""
        number, shortest = int(network.network_address), network.max_prefixlen - network.prefixlen
        for shift, numbers in self._by_length[network.version].items():
            if shift >= shortest and number >> shift in numbers:
                return True
        return False

    def around(self, address: Address) -> Networks:
        """Those networks that contain `address`, without the default network."""
        return Networks(each for each in self._listed if each.prefixlen and address in each)

    def overlap(self, network: Network) -> bool:
        """Whether any of these networks shares an address with `network`."""
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
"""Addresses that no host has: this network, the unspecified address, and broadcast (RFC 1122)."""
LINK_LOCAL = Networks([ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10")])
METADATA = Networks(
    [
        ipaddress.ip_network("169.254.169.0/24"),
        ipaddress.ip_network("169.254.170.0/24"),
        ipaddress.ip_network("fe80::/10"),
        ipaddress.ip_network("fd00:ec2::/32"),
    ]
)
"""The link-local addresses of cloud metadata services, and IPv6's link-local network."""


def host_fault(address: Address) -> str | None:
    """Why no end of a wire may have `address`, or None. IPv4 link-local is allowed: some endpoints assign it."""
    if address not in _ANY_NO_HOST:
        return None
    return next(what for networks, what in _NO_HOST if address in networks)


def route_fault(network: Network) -> str | None:
    """Why no route of a wire may lead to `network`, or None: it is of a kind that every machine has itself.

    A default route, or another route wider than a machine's own networks, is allowed: the narrower ones win.
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
"""One lookup that nearly always finds nothing; only if it does, the reason is determined."""
