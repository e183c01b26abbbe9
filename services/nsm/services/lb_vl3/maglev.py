"""Consistent hashing: which server each part of the connections goes to, and moves as few as possible when one leaves.

The algorithm is Maglev's (Eisenbud et al., NSDI 2016, section 3.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SLOTS = 1021
"""Parts that connections are divided into: a prime, and many for each server."""


def table(servers: Sequence[str], slots: int = SLOTS) -> list[str]:
    """The server of each slot; empty without servers. The order of `servers` does not matter. `slots` is a prime."""
    names = sorted(set(servers))
    if not names:
        return []
    steps = [_steps(name, slots) for name in names]
    found, left, nexts = [-1] * slots, slots, [0] * len(names)
    while left:
        for number, (offset, skip) in enumerate(steps):
            slot = (offset + nexts[number] * skip) % slots
            while found[slot] >= 0:
                nexts[number] += 1
                slot = (offset + nexts[number] * skip) % slots
            found[slot] = number
            nexts[number] += 1
            left -= 1
            if not left:
                break
    return [names[number] for number in found]


def _steps(name: str, slots: int) -> tuple[int, int]:
    """Where a server begins to take slots, and in which steps."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % slots, int.from_bytes(digest[8:16], "big") % (slots - 1) + 1
