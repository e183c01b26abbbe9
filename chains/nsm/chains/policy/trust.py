"""Which identities a component trusts beyond the peer of a connection, and which may see more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from nsm.chains.config import Common, variable

from .patterns import NOBODY, IdPatterns

_PAUSE = 1.0
"""The shortest interval between refreshes of the vouchers, in seconds, however many calls need one."""


class Learned:
    """SPIFFE IDs that a trusted component provides, requested on demand.

    `ask` returns all of them. If it raises, the known ones stay.
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
        """Request them, unless that happened a moment ago; returns whether they changed."""
        before = self._known
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now >= self._next:
                self._known = frozenset(await self._ask()) or self._known
                self._next = asyncio.get_running_loop().time() + _PAUSE
        return self._known != before


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The identities that may do more than manage their own connections. Empty by default."""

    intermediaries: IdPatterns = NOBODY
    """Identities that may vouch for others further back in a path: managers, forwarders, registries, proxies."""
    learned: Learned | None = None
    """More vouchers, learned at run time if none are configured."""
    viewers: IdPatterns = NOBODY
    """Identities that may watch connections whose path they are not on."""

    @property
    def trust_domain(self) -> str:
        """Our own trust domain; empty if it is not known."""
        return self.intermediaries.trust_domain

    def has_vouchers(self) -> bool:
        """Whether anyone may vouch for others: only then can clients behind them be told apart."""
        return bool(self.intermediaries) or (self.learned is not None and len(self.learned) > 0)

    def matches(self, spiffe_id: str) -> bool:
        """Whether `spiffe_id` may vouch for others."""
        return self.intermediaries.matches(spiffe_id) or (self.learned is not None and spiffe_id in self.learned)


NO_TRUST = Trust()


@dataclass(frozen=True, kw_only=True)
class Trusting(Common):
    """Variables of every component that serves others."""

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
