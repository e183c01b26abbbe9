"""A pool of single addresses out of one prefix, lowest first."""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable

from nsm.chains.core import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """A prefix, host bits allowed. Raises `InvalidRequest` that names it."""
    try:
        return ipaddress.ip_interface(text).network
    except ValueError:
        raise InvalidRequest(f"{text!r} is no prefix; expected one such as 10.0.0.0/24 or fd00::/64") from None


class PrefixPool:
    """The free addresses of a prefix, kept as ranges: memory grows with what is taken, not with the prefix."""

    def __init__(self, prefix: str) -> None:
        self.network = parse_network(prefix)
        self._free = [(int(self.network.network_address), int(self.network.broadcast_address))]

    def __contains__(self, address: Address) -> bool:
        """Whether `address` is of this prefix, free or not."""
        return address in self.network

    def pull(self, excluded: Iterable[Network] = ()) -> Address | None:
        """Take the lowest free address outside of `excluded`; None if there is none."""
        barred = sorted(self._range(network) for network in excluded if network.version == self.network.version)
        for low, high in self._free:
            candidate = low
            for first, last in barred:
                if first <= candidate <= last:
                    candidate = last + 1
            if candidate <= high:
                self._take(candidate)
                return self._address(candidate)
        return None

    def claim(self, address: Address, excluded: Iterable[Network] = ()) -> bool:
        """Take this very address; says whether it was free, of this prefix, and outside of `excluded`."""
        if address not in self.network or any(address in network for network in excluded):
            return False
        return self._take(int(address))

    def give(self, address: Address) -> None:
        """Put an address back; one that is free or not of this prefix is left alone."""
        value = int(address)
        position = bisect.bisect(self._free, (value, value))
        touching = self._free[max(0, position - 1) : position + 1]
        if address not in self.network or any(low <= value <= high for low, high in touching):
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

    def _range(self, network: Network) -> tuple[int, int]:
        return int(network.network_address), int(network.broadcast_address)

    def _address(self, value: int) -> Address:
        return ipaddress.IPv4Address(value) if self.network.version == 4 else ipaddress.IPv6Address(value)
