"""Keeps wires as they were made: changes by others are repaired.

A dataplane is notified of changes, and says which wires they may concern. That is only a reason to look: then the wire
is read, and compared with its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from nsm.apis.connection import Connection, State
from nsm.chains.core import Call, Element, Handler, Key, MeshError, Store, Tasks, counts
from nsm.chains.elements.monitor import REPORTER, say
from nsm.chains.logs import log
from nsm.chains.model.causes import CHANGED, NAMESPACE_GONE, REFRESH_NEEDED, REPAIRED, Cause

from .dataplane import LIVE, LiveWire
from .pace import Pace

REPAIR, REPORT_ONLY = "repair", "report"
"""What to do about a wire that others changed: repair it, or report it."""

CHANGES = counts.Count("nsm_wire_changes", "Changes of wires by others", "what")
"""By the kind of `Repair`, and `deleted`, `renamed`, `namespace`."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One kind of damage, and its repair."""

    kind: str
    """For the counter, such as link, mtu, address or route; one of a few known names."""
    found: str
    done: str


@dataclass(slots=True)
class Report:
    """The state in which a wire was found."""

    is_gone: bool = False
    """Whether one of its ends no longer exists, and has to be made again."""
    lost: tuple[bool, ...] = ()
    """The ends whose workloads' namespaces are gone; for each whether it is the endpoint's."""
    is_out_of_reach: bool = False
    """Whether there is an end that cannot be checked before its workload requests again."""
    repairs: Sequence[tuple[str, Repair]] = ()
    """The necessary repairs, with the interface's name; done, if requested."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """The former and the current names of interfaces."""


class Notified(Protocol):
    """Who is notified of changes to one wire, in the event loop."""

    def suspect(self) -> None:
        """Something may have been taken from the wire."""

    def lost(self, ends: Iterable[bool]) -> None:
        """The namespaces of these ends are gone: see `Report.lost`."""


class Watch(Protocol):
    """One wire that is watched."""

    async def settle(self) -> None:
        """Wait for the end of a change that is under way, for some tenths of a second at most."""

    def stop(self) -> None:
        """Watch it no longer."""


L_contra = TypeVar("L_contra", bound=LiveWire, contravariant=True)


class Repairs(Protocol[L_contra]):
    """A dataplane's part of keeping wires."""

    async def watch(self, store: Store, live: L_contra, notified: Notified) -> Watch | None:
        """Have changes to a connection's wire from now on passed to `notified`; None: there are none to be had here."""

    async def mend(self, store: Store, live: L_contra, *, do: bool) -> Report:
        """Check a wire; with `do` repair what others changed."""

    async def remake(self, live: L_contra) -> bool:
        """Make a wire again that is gone, with its former names and addresses; whether that was possible from here."""

    async def aclose(self) -> None:
        """End all notifications."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A watched wire."""

    keep: Keep
    store: Store
    live: LiveWire
    watch: Watch | None = None
    service: str = ""
    endpoint: str = ""
    pace: Pace = field(default_factory=Pace)
    task: asyncio.Task[None] | None = None
    is_suspect: bool = False
    """Whether a change was reported since it was last checked."""
    waits: bool = False
    """Whether the client was asked for its namespaces, and has not requested again."""
    has_given_up: bool = False
    """Whether the log reports that it is changed again and again."""

    @property
    def is_current(self) -> bool:
        """Whether the connection still has this wire: one that is being removed is not touched."""
        return self.store.get(LIVE) is self.live

    def suspect(self) -> None:
        """See `Notified`."""
        self.keep.suspect(self)

    def lost(self, ends: Iterable[bool]) -> None:
        """See `Notified`."""
        self.keep.namespace_is_gone(self, ends)


class Keep(Element):
    """Repair changes that others make to a wire, or with `REPORT_ONLY` report them.

    A link that is down is set up, and missing addresses, neighbors, routes and rules are restored, as well as the MTU.
    A deleted link is created again with the same settings. A renamed one is kept. Additions by an administrator stay,
    and repeated changes are repaired ever more slowly. A wire whose namespace has ended is closed at once. If this
    forwarder cannot enter the namespace, the client is asked to send its request again.

    Stands in a forwarder's chain before the element that makes the wires, and sees the connections that succeed.
    """

    def __init__(self, dataplane: Repairs[Any], mode: str = REPAIR) -> None:
        self._dataplane, self._repairs = dataplane, mode == REPAIR
        self._watched: Key[_Watched] = Key("wire that is looked after")
        self._all: set[_Watched] = set()
        self._tasks = Tasks("changes of wires")

    def __len__(self) -> int:
        """The number of watched wires, which a leak test counts."""
        return len(self._all)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Watch the connection's current wire."""
        connection = await rest.request(call)
        if (live := call.live.get(LIVE)) is not None:
            watched = call.live.get(self._watched)
            if watched is None or watched.live is not live:
                watched = await self._watch(call.live, live)
            watched.service = connection.network_service
            watched.endpoint = connection.network_service_endpoint_name
            if watched.waits:  # its namespaces can be opened now
                watched.waits = False
                self.suspect(watched)
        return connection

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        await self._dataplane.aclose()
        await self._tasks.aclose()

    # --- which wires

    async def _watch(self, store: Store, live: LiveWire) -> _Watched:
        if (former := store.get(self._watched)) is None:
            store.on_end(partial(self._forget, store))
        else:
            self._remove(former)
        watched = store.put(self._watched, _Watched(self, store, live))
        self._all.add(watched)
        watched.watch = await self._dataplane.watch(store, live, watched)
        if store.get(self._watched) is not watched:  # it was forgotten meanwhile
            self._remove(watched)
        return watched

    def _forget(self, store: Store) -> None:
        if (watched := store.pop(self._watched)) is not None:
            self._remove(watched)

    def _remove(self, watched: _Watched) -> None:
        self._all.discard(watched)
        if watched.watch is not None:
            watched.watch.stop()
        if watched.task is not None:
            watched.task.cancel()

    # --- what is done about changes

    def suspect(self, watched: _Watched) -> None:
        """Look at a wire."""
        watched.is_suspect = True
        if watched.task is None and watched.is_current:
            watched.task = self._tasks.spawn(self._look(watched), name=f"look at {watched.store.connection_id}")

    async def _look(self, watched: _Watched) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while watched.is_suspect and watched.is_current:
                if self._repairs:
                    await self._pause(watched, watched.pace.wait(clock()))
                    if watched.watch is not None:
                        await watched.watch.settle()
                watched.is_suspect = False
                report = await self._dataplane.mend(watched.store, watched.live, do=self._repairs)
                if watched.is_current:
                    await self._act(watched, report)
        except MeshError as error:
            self._log(watched, "a wire cannot be repaired", error=str(error))
            self._say(watched, CHANGED, f"the wire was changed and cannot be repaired: {error}", error.remedy)
        finally:
            watched.task = None

    async def _pause(self, watched: _Watched, seconds: float) -> None:
        if not watched.pace.is_slow(asyncio.get_running_loop().time()):
            watched.has_given_up = False
        elif not watched.has_given_up:
            watched.has_given_up = True
            self._log(watched, "a wire is changed again and again: it is repaired less and less often")
            found = "the wire is changed from outside again and again: it is repaired less and less often"
            self._say(watched, CHANGED, found, "find the program that changes it, and exclude the interface there")
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
            self.namespace_is_gone(watched, report.lost)
        elif report.is_gone and not watched.live.fault:  # else the dataplane makes it again
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
            self._put_right(watched, found, ", ".join(done))
        else:
            self._left_alone(watched, found)

    async def _make_anew(self, watched: _Watched) -> None:
        found = "interface deleted"
        if not self._repairs:
            self._left_alone(watched, found)
            return

        async def remake() -> None:
            if watched.is_current and await self._dataplane.remake(watched.live):
                watched.pace.repaired(asyncio.get_running_loop().time())
                self._put_right(watched, found, "created again")
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
            found = "the wire was changed; this forwarder needs the client's namespace again to repair it"
            cause = Cause(REFRESH_NEEDED, found, element=self.name, is_healing=True)
            reporter.report(watched.store.connection_id, State.REFRESH_REQUESTED, cause)

    def namespace_is_gone(self, watched: _Watched, ends: Iterable[bool]) -> None:
        """Close a connection whose workloads are gone, and tell the other side first: it need not look for them."""
        whose = ["endpoint's" if is_endpoints else "client's" for is_endpoints in ends]
        CHANGES.add("namespace")
        self._log(watched, "connection closed", found=f"{' and '.join(whose)} network namespace gone", done="closed")
        store = watched.store
        self._forget(store)
        found = f"the {' and '.join(whose)} network namespace is gone"
        remedy = "it ended with its workload: start that again"
        say(store, Cause(NAMESPACE_GONE, found, remedy, self.name), State.DOWN)
        self._tasks.spawn(self._close(store, watched.live), name=f"close {store.connection_id}")

    async def _close(self, store: Store, live: LiveWire) -> None:
        """Close the connection, unless it has another wire when it is its turn: its client may have moved."""
        try:
            await store.events.close(still=lambda: store.get(LIVE) is live)
        except MeshError as error:
            log.info("closing failed", connection=store.connection_id, error=str(error))

    def _put_right(self, watched: _Watched, found: str, done: str) -> None:
        self._log(watched, "wire put right", found=found, done=done)
        self._say(watched, REPAIRED, f"the wire was changed from outside: {found}; {done}")

    def _left_alone(self, watched: _Watched, found: str) -> None:
        self._log(watched, "wire is not as it should be", found=found, done="nothing")
        self._say(
            watched, CHANGED, f"the wire was changed from outside: {found}", "this forwarder only reports changes"
        )

    def _say(self, watched: _Watched, code: str, sentence: str, remedy: str = "") -> None:
        say(watched.store, Cause(code, sentence, remedy, self.name))

    def _log(self, watched: _Watched, event: str, **values: str) -> None:
        about = {"connection": watched.store.connection_id, "service": watched.service, "endpoint": watched.endpoint}
        log.info(event, **about, **values)
