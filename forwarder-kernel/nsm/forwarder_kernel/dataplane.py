"""Makes, changes and removes the veth pairs that are local wires.

One thread talks to the kernel, so that the event loop never waits for it; removals, which take the kernel tens of
milliseconds, have a thread of their own and go many in one message.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from nsm.chains.core import Conflict

from .ends import Place, Settings, Wire
from .netlink import (
    Message,
    Namespace,
    Namespaces,
    NetlinkError,
    add_address,
    add_neighbor,
    add_route,
    create_veth,
    delete_group,
    delete_link,
    remove_address,
    remove_neighbor,
    remove_route,
    set_group,
    set_mtu,
    set_up,
)
from .netlink.messages import VethEnd

T = TypeVar("T")

_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
_FIRST_INDEX, _INDEXES = 1 << 20, 1 << 29
_INDEX_TRIES = 4
_SETTLING_TIMEOUT = 2.0


@dataclass(slots=True)
class _End:
    """One end of a wire that exists."""

    namespace: Namespace
    place: Place
    index: int
    mac: str


@dataclass(slots=True)
class Pair:
    """A wire that exists, and what it is set to."""

    wire: Wire
    client: _End
    endpoint: _End
    alias: str
    seconds: float = 0.0
    """How long the kernel's part of making it took."""


class Dataplane:
    """The local wires of one forwarder. `owner` is written into the alias of everything that it makes."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="netlink-remove")
        self._namespaces: Namespaces | None = None
        self._removing: list[tuple[_End, asyncio.Future[None]]] = []
        self._is_removing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, wire: Wire, connection_id: str) -> Pair:
        """Make a wire; returns when packets can pass.

        A pair that an earlier process of this owner made for the same connection is adopted as it is. Raises
        `Conflict` if an interface name is taken, `InvalidRequest` if a namespace is none, `NetlinkError`; nothing
        is left of it then.
        """
        return await self._in_worker(lambda: self._create(wire, f"nsm {self._owner} {connection_id}"))

    async def change(self, pair: Pair, wire: Wire) -> None:
        """Set an existing pair to `wire`: what is not wanted any more goes, what is unchanged is not touched."""
        await self._in_worker(lambda: self._change(pair, wire))

    async def exists(self, pair: Pair) -> bool:
        """Whether the pair is still there: its namespaces' owners may have removed it."""
        return await self._in_worker(lambda: pair.client.namespace.socket.has_link(pair.client.index))

    async def remove(self, pair: Pair) -> None:
        """Remove a pair, together with all others whose removal is asked for meanwhile; gone already is fine."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._removing.append((pair.endpoint, done))
        if not self._is_removing:
            self._is_removing = True
            task = asyncio.get_running_loop().create_task(self._remove_all(), name="remove wires")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(done)
        finally:
            await self._in_worker(lambda: self._let_go(pair))

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._namespaces is not None:
            await self._in_worker(self._namespaces.close)
        self._worker.shutdown()
        self._remover.shutdown()

    def open_namespaces(self) -> int:
        """How many namespaces are held: what a leak test counts."""
        return len(self._namespaces) if self._namespaces is not None else 0

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # --- in the worker's thread

    def _create(self, wire: Wire, alias: str) -> Pair:
        begin = time.perf_counter()
        if self._namespaces is None:
            self._namespaces = Namespaces()
        namespaces = self._namespaces
        client = namespaces.take(wire.client.path)
        try:
            endpoint = namespaces.take(wire.endpoint.path)
        except BaseException:
            namespaces.give(client)
            raise
        try:
            pair = self._make(namespaces, wire, client, endpoint, alias)
        except BaseException:
            namespaces.give(client)
            namespaces.give(endpoint)
            raise
        pair.seconds = time.perf_counter() - begin
        return pair

    def _make(self, namespaces: Namespaces, wire: Wire, client: Namespace, endpoint: Namespace, alias: str) -> Pair:
        for _ in range(_INDEX_TRIES):
            one = _End(client, wire.client, _new_index(), _new_mac())
            other = _End(endpoint, wire.endpoint, _new_index(), _new_mac())
            try:
                message = create_veth(_veth(one), _veth(other), mtu=wire.mtu, arp=wire.arp)
                namespaces.own.socket.apply([message])
            except NetlinkError as error:
                if (there := self._adopt(wire, client, endpoint, alias)) is not None:
                    return there
                self._explain(error, one, other)
                continue
            pair = Pair(wire, one, other, alias)
            try:
                self._configure(pair)
            except BaseException:
                endpoint.socket.apply([delete_link(other.index)], ignore=_GONE)
                raise
            return pair
        raise Conflict(f"found no free interface index for {wire.client.name}")

    def _adopt(self, wire: Wire, client: Namespace, endpoint: Namespace, alias: str) -> Pair | None:
        """The pair that is there already for this very connection, set to what is wanted."""
        one, other = client.socket.link(name=wire.client.name), endpoint.socket.link(name=wire.endpoint.name)
        if one is None or other is None or one.alias != alias or other.alias != alias:
            return None
        near = _End(client, wire.client, one.index, one.mac)
        far = _End(endpoint, wire.endpoint, other.index, other.mac)
        pair = Pair(wire, near, far, alias)
        self._configure(pair)
        return pair

    def _explain(self, error: NetlinkError, one: _End, other: _End) -> None:
        """Raise what a refused creation means; returns if another index may help."""
        for end in (one, other):
            taken = end.namespace.socket.link(name=end.place.name)
            if taken is not None:
                whose = f", by {taken.alias!r}" if taken.alias else ""
                raise Conflict(f"interface name {end.place.name!r} is taken in {end.namespace.where}{whose}") from error
        if error.errno not in (errno.EEXIST, errno.EBUSY):
            raise error

    def _configure(self, pair: Pair) -> None:
        for end, opposite, settings in _sides(pair, pair.wire):
            messages = [set_up(end.index, pair.alias), *_additions(end.index, settings, opposite.mac)]
            self._apply(end, messages)
        self._settle(pair, pair.wire)

    def _change(self, pair: Pair, wire: Wire) -> None:
        before = {id(end): settings for end, _, settings in _sides(pair, pair.wire)}
        for end, opposite, after in _sides(pair, wire):
            messages = _differences(end.index, before[id(end)], after, opposite.mac)
            if wire.mtu and wire.mtu != pair.wire.mtu:
                messages.insert(0, set_mtu(end.index, wire.mtu))
            self._apply(end, messages)
        self._settle(pair, wire)
        pair.wire = wire

    def _settle(self, pair: Pair, wire: Wire) -> None:
        """Wait until the first packet would arrive: the kernel finishes carrier and addresses when it finds the time.

        The carrier comes with the second end, so this is for both ends when both are set.
        """
        for end, _, settings in _sides(pair, wire):
            socket = end.namespace.socket
            if not socket.settle(end.index, [address.ip for address in settings.addresses], _SETTLING_TIMEOUT):
                raise Conflict(f"interface {end.place.name!r} in {end.namespace.where} does not come up")

    def _apply(self, end: _End, messages: Sequence[Message]) -> None:
        try:
            end.namespace.socket.apply(messages)
        except NetlinkError as error:
            if error.errno != errno.EACCES:
                raise
            end.namespace.enable_ipv6(end.place.name)
            end.namespace.socket.apply(messages)

    def _let_go(self, pair: Pair) -> None:
        assert self._namespaces is not None
        self._namespaces.give(pair.client.namespace)
        self._namespaces.give(pair.endpoint.namespace)

    # --- removal

    async def _remove_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._removing:
            batch, self._removing = self._removing, []
            ends = [end for end, _ in batch]
            try:
                await loop.run_in_executor(self._remover, _remove_links, ends)
            except Exception as error:
                for _, done in batch:
                    done.set_exception(error)
                    done.exception()
            else:
                for _, done in batch:
                    done.set_result(None)
        self._is_removing = False


def _remove_links(ends: Sequence[_End]) -> None:
    """Remove links, those of one namespace in one message; a socket of its own, since the worker uses the other."""
    from .netlink.namespaces import entered  # noqa: PLC0415 - only this thread enters here
    from .netlink.sockets import Socket  # noqa: PLC0415

    by_namespace: dict[int, list[_End]] = {}
    for end in ends:
        by_namespace.setdefault(id(end.namespace), []).append(end)
    for group in by_namespace.values():
        namespace = group[0].namespace
        with entered(namespace.descriptor):
            socket = Socket(namespace.where)
        try:
            socket.apply(_removal([end.index for end in group]), ignore=_GONE)
        finally:
            socket.close()


def _removal(indexes: Sequence[int]) -> list[Message]:
    if len(indexes) == 1:
        return [delete_link(indexes[0])]
    number = _FIRST_INDEX + secrets.randbelow(_INDEXES)
    return [*(set_group(index, number) for index in indexes), delete_group(number)]


def _sides(pair: Pair, wire: Wire) -> tuple[tuple[_End, _End, Settings], tuple[_End, _End, Settings]]:
    return (
        (pair.client, pair.endpoint, wire.client_settings),
        (pair.endpoint, pair.client, wire.endpoint_settings),
    )


def _additions(index: int, settings: Settings, mac: str) -> list[Message]:
    return [
        *(add_address(index, address) for address in settings.addresses),
        *(add_neighbor(index, address, mac) for address in settings.neighbors),
        *(add_neighbor(index, address, own, permanent=False) for address, own in settings.known),
        *(add_route(index, prefix, via) for prefix, via in sorted(settings.routes, key=_links_first)),
    ]


def _links_first(route: tuple[object, object | None]) -> bool:
    return route[1] is not None


def _differences(index: int, before: Settings, after: Settings, mac: str) -> list[Message]:
    added = Settings(
        after.addresses - before.addresses,
        after.routes - before.routes,
        after.neighbors - before.neighbors,
        after.known - before.known,
    )
    return [
        *(remove_route(index, prefix, via) for prefix, via in before.routes - after.routes),
        *(remove_neighbor(index, address) for address in before.neighbors - after.neighbors),
        *(remove_address(index, address) for address in before.addresses - after.addresses),
        *_additions(index, added, mac),
    ]


def _veth(end: _End) -> VethEnd:
    return VethEnd(end.place.name, end.index, end.mac, end.namespace.descriptor)


def _new_index() -> int:
    """An index that nobody has: the kernel counts up from 1, so anything high and random is free."""
    return _FIRST_INDEX + secrets.randbelow(_INDEXES)


def _new_mac() -> str:
    """A locally administered unicast address."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)
