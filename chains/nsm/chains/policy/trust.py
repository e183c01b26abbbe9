"""Whom a component believes, and what it shows to whom, beyond who is at the other end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from nsm.chains.config import Common, variable

from .patterns import NOBODY, IdPatterns

_PAUSE = 1.0
"""Seconds between two looks at who may vouch, however many calls there are from those who may not."""


class Learned:
    """SPIFFE IDs that somebody trusted names, asked for when they are needed.

    `ask` gives all of them. What it raises means that nobody new is known.
    """

    def __init__(self, ask: Callable[[], Awaitable[Iterable[str]]]) -> None:
        self._ask = ask
        self._known: frozenset[str] = frozenset()
        self._asking = asyncio.Lock()
        self._next = float("-inf")

    def __contains__(self, spiffe_id: str) -> bool:
        return spiffe_id in self._known

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    async def learn(self) -> bool:
        """Ask, unless that was done a moment ago; returns whether what is known changed."""
        before = self._known
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now >= self._next:
                self._known = frozenset(await self._ask()) or self._known
                self._next = asyncio.get_running_loop().time() + _PAUSE
        return self._known != before


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The identities that have a part in a mesh beyond their own connections. By default nobody has one."""

    intermediaries: IdPatterns = NOBODY
    """Who may vouch for others further back in a path: managers, forwarders, registries, proxies."""
    learned: Learned | None = None
    """More of those; for who has nobody to configure them."""
    viewers: IdPatterns = NOBODY
    """Who may watch connections whose path it is not on."""

    def has_vouchers(self) -> bool:
        """Whether anybody may vouch for others: then clients that come by way of them are told apart."""
        return bool(self.intermediaries) or (self.learned is not None and len(self.learned) > 0)

    def matches(self, spiffe_id: str) -> bool:
        """Whether `spiffe_id` may vouch for others."""
        return self.intermediaries.matches(spiffe_id) or (self.learned is not None and spiffe_id in self.learned)


NO_TRUST = Trust()


@dataclass(frozen=True, kw_only=True)
class Trusting(Common):
    """What every component reads that serves others."""

    intermediaries: IdPatterns = variable(
        "", IdPatterns.parse, "SPIFFE IDs that may vouch for others in a path: managers, forwarders; patterns, a,b"
    )
    monitor_viewers: IdPatterns = variable(
        "", IdPatterns.parse, "SPIFFE IDs that may watch connections whose path they are not on; patterns, a,b"
    )

    @property
    def trust(self) -> Trust:
        """Both as one."""
        return Trust(intermediaries=self.intermediaries, viewers=self.monitor_viewers)
