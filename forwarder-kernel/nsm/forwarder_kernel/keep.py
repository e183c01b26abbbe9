"""Keeps wires as they were made: changes by others are repaired.

The kernel reports changes in every namespace that a wire ends in, without keeping it open. A report is only a reason
to look: then the wire is read, and compared with its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from nsm.apis.connection import Connection, State
from nsm.apis.mechanisms import KERNEL
from nsm.chains.core import Call, Element, Handler, Key, MeshError, Refused, Store, Tasks, counts
from nsm.chains.elements.monitor import REPORTER
from nsm.chains.forwarding.pace import Pace
from nsm.chains.logs import log

from .live_wire import LiveEnd, LiveWire, live_in
from .mend import Report
from .netlink import Listener, News, is_own
from .policy_routes import PolicyRoutes
from .repair import Repair, mtu_of

REPAIR, REPORT_ONLY = "repair", "report"
"""What to do about a wire that others changed: repair it, or report it."""
_GATHER = 0.01
"""Seconds: news that arrive together are read together."""
_LEFT_DOWN = 0.3
"""Seconds for which a link that was set down stays down: renaming, for example, needs that."""
_AT_ONCE = 512
"""News that are read before other work gets its turn."""

CHANGES = counts.Count("wire_changes", "Changes of wires by others", label="what")
"""By the kind of `Repair`, and `deleted`, `renamed`, `namespace`."""

Place = tuple[int | None, int]
"""A link: the number of its namespace (None: the node's own), and its index."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A watched wire."""

    store: Store
    live: LiveWire
    near_is_first: bool
    """Whether its first end is the client's."""
    service: str = ""
    endpoint: str = ""
    pace: Pace = field(default_factory=Pace)
    task: asyncio.Task[None] | None = None
    is_suspect: bool = False
    """Whether a change was reported since it was last checked."""
    down: set[int] = field(default_factory=set)
    """The indexes of its links that are set down."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether a link that was down is up again, or deleted."""
    waits: bool = False
    """Whether the client was asked for its namespaces, and has not requested again."""
    has_given_up: bool = False
    """Whether the log reports that it is changed again and again."""

    @property
    def is_current(self) -> bool:
        """Whether the connection still has this wire: one that is being removed is not touched."""
        return live_in(self.store) is self.live


class Mends(Protocol):
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


class Keep(Element):
    """Repair changes that others make to a wire, or with `REPORT_ONLY` report them.

    A link that is down is set up, and missing addresses, neighbors, routes and rules are restored, as well as the MTU.
    A deleted link is created again with the same settings. A renamed one is kept. Additions by an administrator stay,
    and repeated changes are repaired ever more slowly. A wire whose namespace has ended is closed at once. If this
    forwarder cannot enter the namespace, the client is asked to send its request again.

    Stands in a forwarder's chain before the elements that make the wires, and sees the connections that succeed.
    """

    def __init__(self, dataplane: Mends, policy_routes: PolicyRoutes | None = None, mode: str = REPAIR) -> None:
        self._dataplane, self._policy_routes, self._repairs = dataplane, policy_routes, mode == REPAIR
        self._by_place: dict[Place, _Watched] = {}
        self._by_number: dict[int | None, set[_Watched]] = {}
        self._watched: Key[_Watched] = Key("wire that is looked after")
        self._tasks = Tasks("changes of wires")
        self._starting: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The number of watched links, which a leak test counts."""
        return len(self._by_place)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Watch the connection's current wire."""
        connection = await rest.request(call)
        if (live := live_in(call.live)) is not None:
            watched = call.live.get(self._watched)
            if watched is None or watched.live is not live:
                watched = await self._watch(call.live, live, connection)
            watched.service = connection.network_service
            watched.endpoint = connection.network_service_endpoint_name
            if watched.waits:  # its namespaces can be opened now
                watched.waits = False
                self._suspect(watched)
        return connection

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        if self._timer is not None:
            self._timer.cancel()
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._tasks.aclose()

    # --- which wires

    async def _watch(self, store: Store, live: LiveWire, connection: Connection) -> _Watched:
        if self._starting is None:
            self._starting = self._tasks.spawn(self._listen(), name="listen to the kernel")
        if self._listener is None:
            await asyncio.wait([self._starting])
        self._read()  # reports up to now are of the wire's creation
        if (former := store.get(self._watched)) is None:
            store.on_end(partial(self._forget, store))
        else:
            self._remove(former)
        is_near = connection.mechanism is not None and connection.mechanism.type == KERNEL
        watched = store.put(self._watched, _Watched(store, live, is_near))
        for place in _places(live.ends):
            self._by_place[place] = watched
            self._by_number.setdefault(place[0], set()).add(watched)
        return watched

    def _forget(self, store: Store) -> None:
        if (watched := store.pop(self._watched)) is not None:
            self._remove(watched)

    def _remove(self, watched: _Watched) -> None:
        for place in _places(watched.live.ends):
            if self._by_place.get(place) is watched:
                del self._by_place[place]
            of_number = self._by_number.get(place[0], set())
            of_number.discard(watched)
            if not of_number:
                self._by_number.pop(place[0], None)
        if watched.task is not None:
            watched.task.cancel()

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
                self._suspect(watched)
            return _AT_ONCE
        for each in news:
            self._hear(each)
        return len(news)

    def _hear(self, news: News) -> None:
        if news.is_end_of_namespace:
            for watched in list(self._by_number.get(news.number, ())):
                self._namespace_is_gone(watched, [_number_of(watched.live, news.number)])
        elif is_own(news.port):
            return
        elif news.is_rule:
            for watched in list(self._by_number.get(news.number, ())):
                if self._has_rules(watched):
                    self._suspect(watched)
        elif (prefix := news.replaced()) is not None:
            for watched in list(self._by_number.get(news.number, ())):
                if any(prefix == route[0] for end in watched.live.wire.kernel_ends for route in end.settings.routes):
                    self._suspect(watched)
        elif (found := self._by_place.get((news.number, news.link_index))) is not None:
            _note_down(news, found)
            if _is_suspicious(news, found.live):
                self._suspect(found)

    # --- what is done about it

    def _suspect(self, watched: _Watched) -> None:
        watched.is_suspect = True
        if watched.task is None and watched.is_current:
            watched.task = self._tasks.spawn(self._look(watched), name=f"look at {watched.store.connection_id}")

    async def _look(self, watched: _Watched) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while watched.is_suspect and watched.is_current:
                if self._repairs:
                    await self._pause(watched, watched.pace.wait(clock()))
                    if watched.down:
                        await _settled(watched)
                watched.is_suspect = False
                report = await self._dataplane.mend(watched.live, do=self._repairs)
                report.repairs += await self._repair_policies(watched)
                if watched.is_current:
                    await self._act(watched, report)
        except MeshError as error:
            self._log(watched, "a wire cannot be repaired", error=str(error))
        finally:
            watched.task = None

    def _has_rules(self, watched: _Watched) -> bool:
        has_policies = self._policy_routes is not None and self._policy_routes.has_any(watched.store)
        return has_policies or any(end.settings.defaults for end in watched.live.wire.kernel_ends)

    async def _repair_policies(self, watched: _Watched) -> list[tuple[str, Repair]]:
        if self._policy_routes is None or not watched.is_current:
            return []
        lost = await self._policy_routes.repair(watched.store, do=self._repairs)
        name = watched.live.ends[0].name
        return [(name, Repair("rule", f"policy {selector} incomplete", "added", ())) for selector in lost]

    async def _pause(self, watched: _Watched, seconds: float) -> None:
        if not watched.pace.is_slow(asyncio.get_running_loop().time()):
            watched.has_given_up = False
        elif not watched.has_given_up:
            watched.has_given_up = True
            self._log(watched, "a wire is changed again and again: it is repaired less and less often")
        await asyncio.sleep(seconds)

    async def _act(self, watched: _Watched, report: Report) -> None:
        for before, after in report.renamed:
            CHANGES.add("renamed")
            self._log(watched, "interface renamed", found=f"{before} is {after}", done="kept")
        if report.repairs:
            for _, repair in report.repairs:
                CHANGES.add(repair.kind)
            self._log_repairs(watched, report)
        if report.lost:
            self._namespace_is_gone(watched, report.lost)
        elif report.is_gone:
            CHANGES.add("deleted")
            await self._make_anew(watched)
        elif report.is_out_of_reach:
            self._ask(watched)

    def _log_repairs(self, watched: _Watched, report: Report) -> None:
        by_name: dict[str, list[str]] = {}
        done: dict[str, None] = {}
        for name, repair in report.repairs:
            by_name.setdefault(name, []).append(repair.found)
            done[repair.done] = None
        found = "; ".join(f"{name}: {', '.join(what)}" for name, what in by_name.items())
        if self._repairs:
            watched.pace.repaired(asyncio.get_running_loop().time())
            self._log(watched, "wire put right", found=found, done=", ".join(done))
        else:
            self._log(watched, "wire is not as it should be", found=found, done="nothing")

    async def _make_anew(self, watched: _Watched) -> None:
        found = "interface deleted"
        if not self._repairs:
            self._log(watched, "wire is not as it should be", found=found, done="nothing")
            return

        async def remake() -> None:
            if watched.is_current and await self._dataplane.remake(watched.live):
                watched.pace.repaired(asyncio.get_running_loop().time())
                self._log(watched, "wire put right", found=found, done="created again")
            elif watched.is_current:
                self._ask(watched)

        await watched.store.events.run(remake)

    def _ask(self, watched: _Watched) -> None:
        """Ask the client to send its request again, which brings the namespaces."""
        if not self._repairs or watched.waits:
            return
        watched.waits = True
        if (reporter := watched.store.get(REPORTER)) is not None:
            log.info("the client is asked for a refresh, since a wire changed", connection=watched.store.connection_id)
            reporter.report(watched.store.connection_id, State.REFRESH_REQUESTED)

    def _namespace_is_gone(self, watched: _Watched, ends: Iterable[int]) -> None:
        whose = ["client's" if (number == 0) == watched.near_is_first else "endpoint's" for number in ends]
        CHANGES.add("namespace")
        self._log(watched, "connection closed", found=f"{' and '.join(whose)} network namespace gone", done="closed")
        store = watched.store
        self._forget(store)
        if (reporter := store.get(REPORTER)) is not None:
            reporter.report(store.connection_id, State.DOWN)
        self._tasks.spawn(self._close(store), name=f"close {store.connection_id}")

    async def _close(self, store: Store) -> None:
        try:
            await store.events.close()
        except MeshError as error:
            log.info("closing failed", connection=store.connection_id, error=str(error))

    def _log(self, watched: _Watched, event: str, **values: str) -> None:
        about = {"connection": watched.store.connection_id, "service": watched.service, "endpoint": watched.endpoint}
        log.info(event, **about, **values)


def _places(ends: Iterable[LiveEnd]) -> list[Place]:
    return [(end.number, end.index) for end in ends]


def _number_of(live: LiveWire, number: int | None) -> int:
    return next((place for place, end in enumerate(live.ends) if end.number == number), 0)


def _note_down(news: News, watched: _Watched) -> None:
    link = news.link()
    if link is not None and not link.is_up:
        watched.down.add(news.link_index)
        watched.is_over.clear()
    elif news.is_end_of_link or (link is not None and news.link_index in watched.down):
        watched.down.discard(news.link_index)
        watched.is_over.set()


async def _settled(watched: _Watched) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEFT_DOWN):
            await watched.is_over.wait()
    watched.down.clear()


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
