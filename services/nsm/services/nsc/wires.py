"""Creates and keeps the wires of one workload."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Handler, MeshError, counts
from nsm.chains.elements.recover import is_same_wire
from nsm.chains.logs import log
from nsm.chains.model.nsurl import NsUrl

from .ready_file import ReadyFile

WIRES = counts.Reading("nsm_wires", "Wires that this client wants: up once a request has succeeded", "state")
_HEAD_START = 3.0
"""Seconds that a wire waits at most for the first attempt of the one before it."""


@dataclass(eq=False)
class _Wire:
    """A connection that is wanted, until it is removed from the list."""

    wanted: NsUrl
    connection_id: str
    began: float = field(default_factory=time.perf_counter)
    attempts: int = 1
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first attempt has succeeded or failed."""
    is_up: bool = False
    work: asyncio.Task[None] | None = None
    """The task that requests it."""
    earlier: Connection | None = None
    """It is from an earlier process, and has not been requested since."""


class Wires:
    """Keeps the connections that were last passed to `set`: requests new ones and closes all others.

    A connection's id belongs to its URL for as long as that is listed: ``<name>-<place in the list>`` when the
    client begins; a URL that is added later takes the id of its place, or the lowest free one. `labels` are for all
    connections; a URL's own take precedence. `is_left` decides whether to close an earlier process's connection that
    is no longer wanted; without it none is closed.
    """

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str],
        ready_file: ReadyFile | None = None,
        is_left: Callable[[Connection], bool] | None = None,
    ) -> None:
        self._name, self._labels, self._ready = name, labels, ready_file or ReadyFile("")
        self._is_left = is_left
        self._chain: Handler | None = None
        self._wires: list[_Wire] = []
        self._leaving: dict[_Wire, asyncio.Task[None]] = {}
        self._changed, self._has_begun = asyncio.Event(), False
        self._following: asyncio.Task[None] | None = None
        self._defect: BaseException | None = None
        WIRES.of(self, lambda wires: [("up" if wire.is_up else "requested",) for wire in wires._wires])

    def __len__(self) -> int:
        """The number of wanted connections."""
        return len(self._wires)

    def over(self, chain: Handler) -> Wires:
        """Request by `chain` from now on; it has to call `failed` for attempts that failed."""
        self._chain = chain
        return self

    def follow(
        self, lists: AsyncIterator[Sequence[NsUrl]], standing: Callable[[], Awaitable[Sequence[Connection]]]
    ) -> None:
        """Keep the last of `lists`, until `stop` or `close`; `standing` looks up an earlier process's connections."""

        async def set_each() -> None:
            async for wanted in lists:
                self.set(wanted, () if self._has_begun else await standing())

        self._following = asyncio.ensure_future(set_each())
        self._following.add_done_callback(self._done)

    def set(self, wanted: Sequence[NsUrl], standing: Sequence[Connection] = ()) -> None:
        """Keep exactly the `wanted` wires from now on; existing ones among them are not touched.

        `standing` are connections of an earlier process: those that are still wanted keep their ids, and the others are
        closed.
        """
        kept, new = self._match(wanted)
        gone = [wire for wire in self._wires if wire not in kept.values()]
        if self._has_begun and (gone or new):
            log.info("the list of services has changed", added=len(new), removed=len(gone), kept=len(kept))
        self._has_begun = True
        for wire in gone:
            self._remove(wire)
        ids = self._ids_for(new, [wire.connection_id for wire in kept.values()], standing)
        for each in standing:
            if self._is_left is not None and each.id not in ids.values() and self._is_left(each):
                self._remove(_earlier(each))
        added = {place: _Wire(each, ids[place]) for place, each in new.items()}
        self._wires = [kept.get(place) or added[place] for place in range(len(wanted))]
        before: _Wire | None = None
        for wire in added.values():
            self._add(wire, before)
            before = wire
        self._changed.set()

    async def all_up(self) -> None:
        """Return when the wanted wires are known, and all of them are there. Raises what a defect raised."""
        while self._defect is None and not (self._has_begun and all(wire.is_up for wire in self._wires)):
            self._changed.clear()
            await self._changed.wait()
        if self._defect is not None:
            raise self._defect

    def failed(self, asked: Connection, error: MeshError, pause: float) -> None:
        """An attempt failed, and is repeated after `pause` seconds."""
        for wire in self._wires:
            if wire.connection_id == asked.id:
                wire.attempts += 1
                wire.tried.set()
        code = error.code_name
        log.warning("no wire yet", service=asked.network_service, code=code, error=str(error), again_in_s=pause)

    async def stop(self) -> None:
        """Stop requesting; existing wires stay."""
        await _cancel([self._following, *(wire.work for wire in self._wires)])

    async def close(self) -> None:
        """Close all, at once."""
        await _cancel([self._following])
        wires, self._wires = self._wires, []
        for wire in wires:
            self._remove(wire)
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    def _match(self, wanted: Sequence[NsUrl]) -> tuple[dict[int, _Wire], dict[int, NsUrl]]:
        """By their places: the existing wires, and the new ones; one URL may be there several times."""
        left, kept, new = list(self._wires), dict[int, _Wire](), dict[int, NsUrl]()
        for place, each in enumerate(wanted):
            wire = next((wire for wire in left if wire.wanted == each), None)
            if wire is None:
                new[place] = each
            else:
                left.remove(wire)
                kept[place] = wire
        return kept, new

    def _ids_for(
        self, new: Mapping[int, NsUrl], taken: Iterable[str], standing: Iterable[Connection]
    ) -> dict[int, str]:
        """Ids of the new ones, by place: that of an earlier process's wire, else that of the place, else a free one."""
        ids, used, earlier = dict[int, str](), set(taken), [each for each in standing if each.id not in set(taken)]

        def use(fits: Callable[[int, NsUrl], str | None]) -> None:
            for place, each in new.items():
                if place not in ids and (found := fits(place, each)) is not None and found not in used:
                    ids[place] = found
                    used.add(found)

        def same(_: int, each: NsUrl) -> str | None:
            request = request_for(each, "", self._labels)
            return next((c.id for c in earlier if c.id not in used and is_same_wire(c, request)), None)

        def same_interface(_: int, each: NsUrl) -> str | None:
            return next((c.id for c in earlier if each.interface and _interface(c) == each.interface), None)

        use(same)
        use(same_interface)
        use(lambda place, _: f"{self._name}-{place}")
        use(lambda _, __: next(each for n in count() if (each := f"{self._name}-{n}") not in used))
        return ids

    def _add(self, wire: _Wire, before: _Wire | None) -> None:
        self._ready.lacks(wire.connection_id, "")
        gone = [
            task
            for left, task in self._leaving.items()
            if left.connection_id == wire.connection_id or left.wanted.interface == wire.wanted.interface != ""
        ]
        wire.work = asyncio.ensure_future(self._connect(wire, before, gone))
        wire.work.add_done_callback(self._done)

    async def _connect(self, wire: _Wire, before: _Wire | None, gone: Sequence[asyncio.Task[None]]) -> None:
        """Request until it is there; after the wires that have to go first, and for a while in the list's order."""
        assert self._chain is not None
        if gone:
            await asyncio.wait(gone)
        if before is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START):
                    await before.tried.wait()
        wire.began = time.perf_counter()
        try:
            connection = await self._chain.request(self._call(wire))
        finally:
            wire.tried.set()
        wire.is_up = True
        _tell(connection, time.perf_counter() - wire.began, wire.attempts)
        self._changed.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = error
            self._changed.set()

    def _remove(self, wire: _Wire) -> None:
        task = self._leaving[wire] = asyncio.ensure_future(self._leave(wire))
        task.add_done_callback(lambda _: self._leaving.pop(wire, None))

    async def _leave(self, wire: _Wire) -> None:
        assert self._chain is not None
        await _cancel([wire.work])
        about = {"connection": wire.connection_id, "service": wire.wanted.network_service}
        if wire.is_up:
            try:
                await self._chain.close(self._call(wire))
                log.info("wire closed", **about)
            except MeshError as error:
                log.warning("closing failed", **about, error=str(error))
        else:
            log.info("service no longer requested", **about)
        if all(other.connection_id != wire.connection_id for other in self._wires):
            self._ready.has(wire.connection_id)

    def _call(self, wire: _Wire) -> Call:
        if wire.earlier is not None:
            return Call(NetworkServiceRequest(connection=codec.clone(wire.earlier)))
        return Call(request_for(wire.wanted, wire.connection_id, self._labels))


def is_here(connection: Connection) -> bool:
    """Whether the wire of a connection is in this process's network namespace."""
    with suppress(OSError):
        return socket.if_nametoindex(_interface(connection)) > 0
    return False


def _earlier(connection: Connection) -> _Wire:
    mechanism = connection.mechanism or Mechanism()
    wanted = NsUrl(connection.network_service, mechanism, connection.labels)
    return _Wire(wanted, connection.id, is_up=True, earlier=connection)


def request_for(wanted: NsUrl, connection_id: str, labels: Mapping[str, str]) -> NetworkServiceRequest:
    """The requester of `wanted`, for a client all of whose connections have `labels`."""
    connection = Connection(
        id=connection_id, network_service=wanted.network_service, labels={**labels, **wanted.labels}
    )
    return NetworkServiceRequest(connection=connection, mechanism_preferences=[codec.clone(wanted.mechanism)])


async def _cancel(tasks: Iterable[asyncio.Task[None] | None]) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _interface(connection: Connection) -> str:
    return connection.mechanism.parameters.get(INTERFACE_NAME, "") if connection.mechanism is not None else ""


def _tell(connection: Connection, seconds: float, attempts: int) -> None:
    ip = connection.context.ip_context if connection.context else None
    passed = connection.path.path_segments[1:] if connection.path else []
    log.info(
        "wire up",
        connection=connection.id,
        service=connection.network_service,
        endpoint=connection.network_service_endpoint_name,
        path=[segment.name for segment in passed],
        interface=_interface(connection) or None,
        addresses=ip.src_ip_addrs if ip else None,
        ms=round(seconds * 1000, 1),
        attempts=attempts,
    )
