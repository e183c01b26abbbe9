"""Is notified of changes to wires by the kernel, for `Keep`.

The kernel reports changes in every namespace that a wire ends in, without keeping it open. A report is only a reason to
look: most are harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from nsm.chains.core import Refused, Store, Tasks
from nsm.chains.forwarding.dataplane import LiveWire as AnyWire
from nsm.chains.forwarding.keep import Notified, Repair, Report
from nsm.chains.logs import log
from nsm.chains.netlink import Listener, News, is_own

from .live_wire import LiveEnd, LiveWire
from .policy_routes import PolicyRoutes
from .repair import mtu_of

_GATHER = 0.01
"""Seconds: news that arrive together are read together."""
_LEFT_DOWN = 0.3
"""Seconds for which a link that was set down stays down: renaming, for example, needs that."""
_AT_ONCE = 512
"""News that are read before other work gets its turn."""

Place = tuple[int | None, int]
"""A link: the number of its namespace (None: the node's own), and its index."""


class Wires(Protocol):
    """What it needs of a dataplane whose wires have interfaces of the kernel; see there."""

    async def listen(self) -> Listener:
        """The kernel's news."""
        ...

    async def mend(self, live: LiveWire, *, do: bool) -> Report:
        """Check a wire, and repair it."""
        ...

    async def remake(self, live: LiveWire) -> bool:
        """Make a wire again."""
        ...


class Watcher:
    """`Repairs` for wires with interfaces of the kernel, and for the policies of their clients."""

    def __init__(self, dataplane: Wires, policy_routes: PolicyRoutes | None = None) -> None:
        self._dataplane, self._policy_routes = dataplane, policy_routes
        self._by_place: dict[Place, _Watched] = {}
        self._by_number: dict[int | None, set[_Watched]] = {}
        self._tasks = Tasks("news of the kernel")
        self._starting: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The number of watched links, which a leak test counts."""
        return len(self._by_place)

    async def watch(self, store: Store, live: AnyWire, notified: Notified) -> _Watched | None:
        """See `Repairs`."""
        if not isinstance(live, LiveWire):
            return None
        if self._starting is None:
            self._starting = self._tasks.spawn(self._listen(), name="listen to the kernel")
        if self._listener is None:
            await asyncio.wait([self._starting])
        self._read()  # reports up to now are of the wire's creation
        watched = _Watched(self, store, live, notified)
        for place in _places(live.ends):
            self._by_place[place] = watched
            self._by_number.setdefault(place[0], set()).add(watched)
        return watched

    def forget(self, watched: _Watched) -> None:
        """Watch a wire no longer."""
        for place in _places(watched.live.ends):
            if self._by_place.get(place) is watched:
                del self._by_place[place]
            of_number = self._by_number.get(place[0], set())
            of_number.discard(watched)
            if not of_number:
                self._by_number.pop(place[0], None)

    async def mend(self, store: Store, live: AnyWire, *, do: bool) -> Report:
        """See `Repairs`: the wire first, then the policies."""
        if not isinstance(live, LiveWire):
            return Report()
        report = await self._dataplane.mend(live, do=do)
        if self._policy_routes is not None:
            lost = await self._policy_routes.repair(store, do=do)
            rules = [Repair("rule", f"policy {selector} incomplete", "added") for selector in lost]
            report.repairs = [*report.repairs, *((live.ends[0].name, each) for each in rules)]
        return report

    async def remake(self, live: AnyWire) -> bool:
        """See `Repairs`."""
        return isinstance(live, LiveWire) and await self._dataplane.remake(live)

    async def aclose(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._tasks.aclose()

    # --- what the kernel reports

    async def _listen(self) -> None:
        try:
            self._listener = await self._dataplane.listen()
        except Refused as error:
            log.warning("wires are not watched for changes", error=str(error))
            return
        asyncio.get_running_loop().add_reader(self._listener, self._is_readable)

    def _is_readable(self) -> None:
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._timer = loop.call_later(_GATHER, self._gather)

    def _gather(self) -> None:
        if self._listener is not None:
            loop = asyncio.get_running_loop()
            if self._read() < _AT_ONCE:
                loop.add_reader(self._listener, self._is_readable)
            else:
                self._timer = loop.call_later(0, self._gather)

    def _read(self) -> int:
        """Read the waiting news, up to a limit; returns how many there were."""
        news = self._listener.read(_AT_ONCE) if self._listener is not None else []
        if news is None:
            log.info("more changes than the kernel could report: checking every wire", wires=len(self))
            for watched in set(self._by_place.values()):
                watched.notified.suspect()
            return _AT_ONCE
        for each in news:
            self._hear(each)
        return len(news)

    def _hear(self, news: News) -> None:
        if news.is_end_of_namespace:
            for watched in list(self._by_number.get(news.number, ())):
                watched.notified.lost([_is_endpoints(watched.live, news.number)])
        elif is_own(news.port):
            return
        elif news.is_rule:
            for watched in list(self._by_number.get(news.number, ())):
                if self._has_rules(watched):
                    watched.notified.suspect()
        elif (prefix := news.replaced()) is not None:
            for watched in list(self._by_number.get(news.number, ())):
                if any(prefix == route[0] for end in watched.live.wire.kernel_ends for route in end.settings.routes):
                    watched.notified.suspect()
        elif (found := self._by_place.get((news.number, news.link_index))) is not None:
            _note_down(news, found)
            if _is_suspicious(news, found.live):
                found.notified.suspect()

    def _has_rules(self, watched: _Watched) -> bool:
        has_policies = self._policy_routes is not None and self._policy_routes.has_any(watched.store)
        return has_policies or any(end.settings.defaults for end in watched.live.wire.kernel_ends)


@dataclass(slots=True, eq=False)
class _Watched:
    """A watched wire."""

    watcher: Watcher
    store: Store
    live: LiveWire
    notified: Notified
    down: set[int] = field(default_factory=set)
    """The indexes of its links that are set down."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether a link that was down is up again, or deleted."""

    async def settle(self) -> None:
        """Leave a link down for a moment."""
        if self.down:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEFT_DOWN):
                    await self.is_over.wait()
            self.down.clear()

    def stop(self) -> None:
        """Watch it no longer."""
        self.watcher.forget(self)


def _places(ends: Iterable[LiveEnd]) -> list[Place]:
    return [(end.number, end.index) for end in ends]


def _is_endpoints(live: LiveWire, number: int | None) -> bool:
    """Whether the end in the namespace of that number is the endpoint's."""
    ends = zip(live.ends, live.wire.kernel_ends, strict=True)
    return next((described.is_endpoints for end, described in ends if end.number == number), False)


def _note_down(news: News, watched: _Watched) -> None:
    link = news.link()
    if link is not None and not link.is_up:
        watched.down.add(news.link_index)
        watched.is_over.clear()
    elif news.is_end_of_link or (link is not None and news.link_index in watched.down):
        watched.down.discard(news.link_index)
        watched.is_over.set()


def _is_suspicious(news: News, live: LiveWire) -> bool:
    """Whether a change may have taken something from a wire: most news about links are harmless."""
    if news.is_end_of_link:
        return True
    if (link := news.link()) is not None:
        end = next(each for each in live.ends if each.index == news.link_index)
        return not link.is_up or link.name != end.name or mtu_of(live.wire) not in (0, link.mtu)
    if news.is_neighbor:
        return any(each.settings.neighbors or each.settings.known for each in live.wire.kernel_ends)
    return True
