"""A pool of the addresses of one prefix, lowest first.

Addresses are treated as 128-bit numbers; an IPv4 address has the number of the IPv6 address that it is mapped to.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Collection, Iterable

from nsm.chains.core import InvalidRequest

from .addresses import Address, Network, read_interface

_MAPPED = 0xFFFF << 32
"""The number of the first IPv4 address."""
_SHOWN = 8
MORE_ADDRESSES = "give the endpoint a larger prefix (NSM_CIDR_PREFIX), or start another endpoint of the service"
"""What to do if no address is left."""


def parse_network(text: str) -> Network:
    """A prefix, host bits allowed. Raises `InvalidRequest` that names it."""
    try:
        return ipaddress.ip_interface(text).network
    except ValueError:
        raise InvalidRequest(f"{text!r} is not a prefix; expected one such as 10.0.0.0/24 or fd00::/64") from None


def _number(address: Address) -> int:
    return int(address) + _MAPPED if address.version == 4 else int(address)


def _span(network: Network) -> tuple[int, int]:
    return _number(network.network_address), _number(network.broadcast_address)


class Excluded:
    """Prefixes whose addresses are excluded; text that does not parse excludes nothing.

    ``::/0`` excludes IPv4 addresses too: they are mapped into it.
    """

    def __init__(self, prefixes: Iterable[str]) -> None:
        interfaces = (read_interface(text) for text in prefixes)
        self.networks = [interface.network for interface in interfaces if interface is not None]
        self._firsts, self._lasts = _joined(sorted(map(_span, self.networks)))

    def __contains__(self, address: Address) -> bool:
        number = _number(address)
        return self.above(number) != number

    def __str__(self) -> str:
        shown, more = ", ".join(map(str, self.networks[:_SHOWN])), len(self.networks) - _SHOWN
        return f"{shown} and {more} others" if more > 0 else shown

    def above(self, number: int) -> int:
        """The lowest number from `number` on that is not excluded."""
        place = bisect.bisect_right(self._firsts, number) - 1
        return max(number, self._lasts[place] + 1) if place >= 0 else number


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """First and last numbers of `spans`, in their order; those that touch or overlap are one."""
    firsts: list[int] = []
    lasts: list[int] = []
    for first, last in spans:
        if lasts and first <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts


_NOBODY: frozenset[str] = frozenset()


class PrefixPool:
    """The free addresses of a prefix, kept as ranges: memory grows with what is taken, not with the prefix.

    An address may be held under a name: only a claim with that name takes it, and it is held again when it is given
    back.
    """

    def __init__(self, prefix: str) -> None:
        self.network = parse_network(prefix)
        self._free = [_span(self.network)]
        self._held: dict[Address, str] = {}
        self._held_by: dict[str, list[Address]] = {}
        self._lent: set[Address] = set()

    def pull(self, excluded: Excluded) -> Address | None:
        """Take the lowest free address that is not `excluded`; None if there is none."""
        for low, high in self._free:
            candidate = excluded.above(low)
            if candidate <= high:
                self._take(candidate)
                return self._address(candidate)
        return None

    def claim(self, address: Address, excluded: Excluded, names: Collection[str] = _NOBODY) -> bool:
        """Take this address; False if it is taken, not in this prefix, or `excluded`.

        One that is held is free for whom it is held for, if that is one of `names`.
        """
        if address in excluded:
            return False
        if self._held and self._held.get(address) in names and address not in self._lent:
            self._lent.add(address)
            return True
        return self._take(_number(address))

    def hold(self, name: str, address: Address) -> None:
        """Hold this address for `name` if it is free."""
        if self._take(_number(address)):
            self._held[address] = name
            self._held_by.setdefault(name, []).append(address)

    def release(self, name: str) -> None:
        """Hold nothing for `name` any more; what was claimed of it is taken as any other, and the rest is free."""
        for address in self._held_by.pop(name, ()):
            del self._held[address]
            if address in self._lent:
                self._lent.discard(address)
            else:
                self.give(address)

    def give(self, address: Address) -> None:
        """Return an address to the pool; one that is free or not in this prefix is ignored."""
        if address in self._held:
            self._lent.discard(address)
            return
        value = _number(address)
        position = bisect.bisect(self._free, (value, value))
        touching = self._free[max(0, position - 1) : position + 1]
        first, last = _span(self.network)
        if not first <= value <= last or any(low <= value <= high for low, high in touching):
            return
        low = high = value
        if position < len(self._free) and self._free[position][0] == value + 1:
            high = self._free.pop(position)[1]
        if position > 0 and self._free[position - 1][1] == value - 1:
            position -= 1
            low = self._free.pop(position)[0]
        self._free.insert(position, (low, high))

    def _take(self, value: int) -> bool:
        for position, (low, high) in enumerate(self._free):
            if low <= value <= high:
                pieces = [(low, value - 1), (value + 1, high)]
                self._free[position : position + 1] = [piece for piece in pieces if piece[0] <= piece[1]]
                return True
        return False

    def _address(self, value: int) -> Address:
        if self.network.version == 4:
            return ipaddress.IPv4Address(value - _MAPPED)
        return ipaddress.IPv6Address(value)
