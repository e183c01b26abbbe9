"""An endpoint's shares of a vL3 network, which may change while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator

from nsm.apis.connection import State
from nsm.chains.core import Store
from nsm.chains.model.addresses import Address
from nsm.chains.model.causes import REFRESH_NEEDED, Cause
from nsm.chains.model.networks import NO_NETWORKS, Networks
from nsm.chains.model.prefixes import Excluded, PrefixPool
from nsm.chains.model.vl3 import Share

from .monitor import REPORTER

_NOTHING = Excluded(())


class Vl3Network:
    """The shares of one endpoint, one from each of `servers` prefix services, and the addresses for its clients.

    It is ready when all shares are known. Addresses of earlier connections are held (see `Holds`) even before.
    """

    def __init__(self, servers: int) -> None:
        self._shares: list[Share | None] = [None] * servers
        self._pools: list[PrefixPool | None] = [None] * servers
        self._held: dict[str, set[Address]] = {}
        self._ready = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []
        self.prefixes, self.whole = NO_NETWORKS, NO_NETWORKS
        """The prefixes of this endpoint, and the networks that they are of."""

    @property
    def is_ready(self) -> bool:
        """Whether all shares are known."""
        return self._ready.is_set()

    @property
    def shares(self) -> list[Share]:
        """The known shares, in the order of the prefix services."""
        return [share for share in self._shares if share is not None]

    def pools(self) -> Iterator[tuple[Share, PrefixPool]]:
        """Each share with its free addresses; a share that changes has another pool."""
        for share, pool in zip(self._shares, self._pools, strict=True):
            if share is not None and pool is not None:
                yield share, pool

    def own(self) -> list[Address]:
        """The endpoint's own addresses."""
        return [share.own for share in self.shares]

    async def ready(self) -> None:
        """Wait until all shares are known."""
        await self._ready.wait()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a share has changed."""
        self._on_change.append(callback)

    def set(self, server: int, share: Share) -> None:
        """The prefix service number `server` handed out `share`."""
        if self._shares[server] == share:
            return
        pool = PrefixPool(str(share.prefix))
        pool.claim(share.own, _NOTHING)
        self._shares[server], self._pools[server] = share, pool
        for name, addresses in self._held.items():
            _hold(pool, name, addresses)
        self.prefixes = Networks(each.prefix for each in self.shares)
        self.whole = Networks(each.whole for each in self.shares)
        if None not in self._shares:
            self._ready.set()
        for callback in self._on_change:
            callback()

    def hold(self, name: str, addresses: Collection[Address]) -> None:
        """See `Holds`."""
        self._held.setdefault(name, set()).update(addresses)
        for _, pool in self.pools():
            _hold(pool, name, addresses)

    def release(self, name: str) -> None:
        """See `Holds`."""
        self._held.pop(name, None)
        for _, pool in self.pools():
            pool.release(name)


def _hold(pool: PrefixPool, name: str, addresses: Collection[Address]) -> None:
    for address in addresses:
        if address in pool.network:
            pool.hold(name, address)


def ask_again(store: Store) -> None:
    """Have the client of an established connection send its request again."""
    if (reporter := store.get(REPORTER)) is not None:
        cause = Cause(
            REFRESH_NEEDED, "the prefixes or addresses of the network changed: the client has to request again"
        )
        reporter.report(store.connection_id, State.REFRESH_REQUESTED, cause)
