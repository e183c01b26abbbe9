"""Slows down whoever guesses: refused attempts by address."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable

from nsm.chains.core import Exhausted

_MOST, _WITHIN = 10, 60.0
"""Refused attempts of one address, and the seconds in which they count."""
_REMEMBERED = 4096


class Attempts:
    """Refused attempts, by IPv4 address or IPv6 network of 64 bits; `now` returns seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises `Exhausted` if there were too many from that address."""
        failed = self._failed.get(_holder(address))
        if failed is None or len(failed) < _MOST or (left := failed[0] + _WITHIN - self._now()) <= 0:
            return
        raise Exhausted(f"too many refused attempts to join from {address}; try again in {left:.0f} s")

    def failed(self, address: str) -> None:
        """Count a refused attempt."""
        holder = _holder(address)
        self._failed.setdefault(holder, deque(maxlen=_MOST)).append(self._now())
        self._failed.move_to_end(holder)
        while len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)


def _holder(address: str) -> str:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
