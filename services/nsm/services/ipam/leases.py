"""Who has which prefix of a network, and until when.

A prefix belongs to whoever received it for as long as a stream of theirs is open, and for the lease time after that:
a broken stream, or a restart of the server, takes no prefix away from an endpoint whose clients use its addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nsm.chains.core import Exhausted, MeshError
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network

from .lease_store import Holder, LeaseStore
from .prefix_space import PrefixSpace


@dataclass(slots=True)
class _Lease:
    """A prefix in use. `until` is None while a stream of its holder is open."""

    prefix: Network
    holder: Holder
    stream: object | None = None
    until: float | None = None


class Leases:
    """The prefixes of `space` in use. Times are in seconds of `now`, by default of the event loop.

    `most` limits the prefixes of one identity.
    """

    def __init__(
        self,
        space: PrefixSpace,
        store: LeaseStore,
        *,
        lease_time: float,
        most: int,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._space, self._store, self._lease_time, self._most = space, store, lease_time, most
        self._now = now or asyncio.get_running_loop().time
        self._leases: dict[Network, _Lease] = {}

    @property
    def network(self) -> Network:
        """The network that prefixes are of."""
        return self._space.network

    def __len__(self) -> int:
        """The number of prefixes in use, or kept."""
        return len(self._leases)

    async def load(self) -> None:
        """Read what an earlier process handed out: its holders have the lease time from now to request it again.

        Leases outside of the network, which was another one then, are left alone: another server may use the file too.
        """
        until = self._now() + self._lease_time
        for prefix, holder in await self._store.load():
            if self._space.holds(prefix):
                self._leases[prefix] = _Lease(prefix, holder, None, until)

    async def allocate(
        self, holder: Holder, stream: object, wanted: Network | None, excluded: Sequence[Network]
    ) -> Network:
        """A prefix for `holder`, as long as `stream` is open and for the lease time after it.

        It is `wanted` if no other endpoint has that; else the one that the holder of this name had before; else the
        lowest free one outside of `excluded`. Raises `Exhausted` if there is none, and `Unavailable` if it cannot be
        stored.
        """
        await self._expire()
        if wanted is not None and (again := self._again(holder, wanted)) is not None:
            return await self._hand_out(again, holder, stream)
        if wanted is None and (former := self._former(holder, excluded)) is not None:
            return await self._hand_out(former, holder, stream)
        free = self._space.lowest([*self._leases, *excluded])
        if free is None:
            raise Exhausted(self._why_none(excluded))
        return await self._hand_out(free, holder, stream)

    async def give_back(self, stream: object, prefix: Network) -> bool:
        """End a lease at once; whether it was that stream's."""
        lease = self._leases.get(prefix)
        if lease is None or lease.stream is not stream:
            return False
        await self._remove(lease)
        return True

    def ended(self, stream: object) -> None:
        """A stream is over: what it held is kept for its holder for the lease time."""
        until = self._now() + self._lease_time
        for lease in self._leases.values():
            if lease.stream is stream:
                lease.stream, lease.until = None, until

    def _again(self, holder: Holder, wanted: Network) -> Network | None:
        """`wanted`, if it may be handed out and only `holder` has any of it."""
        if not self._space.holds(wanted):
            return None
        others = [each for each in self._leases.values() if each.prefix.overlaps(wanted)]
        is_own = all(each.holder == holder and each.prefix == wanted for each in others)
        return wanted if is_own else None

    def _former(self, holder: Holder, excluded: Sequence[Network]) -> Network | None:
        """The prefix that the endpoint of this name had; those without a name may be several."""
        if not holder.name:
            return None
        had = [each.prefix for each in self._leases.values() if each.holder == holder and each.stream is None]
        fits = [prefix for prefix in had if not any(_overlap(prefix, each) for each in excluded)]
        return min(fits, key=lambda prefix: int(prefix.network_address), default=None)

    async def _hand_out(self, prefix: Network, holder: Holder, stream: object) -> Network:
        lease = self._leases.get(prefix)
        if lease is not None:
            lease.stream, lease.until = stream, None
            return prefix
        held = sum(each.holder.spiffe_id == holder.spiffe_id for each in self._leases.values())
        if held >= self._most:
            raise Exhausted(
                f"{holder.spiffe_id} has {held} prefixes of {self._space} already (NSM_LIMITS=prefixes:..)",
                limit="prefixes",
            )
        lease = self._leases[prefix] = _Lease(prefix, holder, stream)  # first: nobody else may get it meanwhile
        try:
            await self._store.put(prefix, holder)
        except BaseException:
            if self._leases.get(prefix) is lease:
                del self._leases[prefix]
            raise
        log.info("prefix handed out", prefix=str(prefix), to=str(holder), in_use=len(self._leases))
        return prefix

    async def _expire(self) -> None:
        now = self._now()
        for lease in [each for each in self._leases.values() if each.until is not None and each.until <= now]:
            log.info(
                "prefix free again: its endpoint did not come back", prefix=str(lease.prefix), of=str(lease.holder)
            )
            try:
                await self._remove(lease)
            except MeshError as error:
                log.warning("a lease that ended is still stored", prefix=str(lease.prefix), error=str(error))

    async def _remove(self, lease: _Lease) -> None:
        if self._leases.get(lease.prefix) is lease:
            del self._leases[lease.prefix]
            await self._store.delete(lease.prefix)

    def _why_none(self, excluded: Sequence[Network]) -> str:
        away = [each.until for each in self._leases.values() if each.until is not None]
        text = f"no /{self._space.length} is left in {self._space}: {len(self._leases)} are in use"
        if away:
            text += (
                f", {len(away)} of them kept for endpoints that are away, the next for {min(away) - self._now():.0f} s"
            )
        if excluded:
            text += f"; the request excludes {', '.join(map(str, excluded[:8]))}"
        return f"{text}; use a larger NSM_PREFIX, or a larger NSM_CLIENT_PREFIX_LEN"


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
