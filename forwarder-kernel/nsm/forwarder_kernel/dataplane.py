"""Makes, changes and removes wires: veth pairs between workloads of this node, and the ends of tunnels to others.

One thread talks to the kernel, so that the event loop never waits for it; removals, which take the kernel tens of
milliseconds, have a thread of their own and go many in one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from nsm.chains.core import Conflict, Unavailable, shielded
from nsm.chains.elements.underlay import read as read_underlay
from nsm.chains.model.networks import Networks

from . import default_routes, end_changes, links, underlay, wireguard_go
from .ends import Place, Settings, Wire, check_own_namespace
from .netlink import (
    Address,
    LinkEnd,
    Message,
    Namespace,
    Namespaces,
    NetlinkError,
    Traffic,
    delete_group,
    delete_link,
    delete_link_there,
    set_group,
    set_mtu,
    set_up,
)
from .tagged_links import TaggedLinks
from .tunnels import Breakout, Underlay, Wireguard
from .wireguard_go import Ahead, Process, Programs

T = TypeVar("T")

_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
_FIRST_INDEX, _INDEXES = 1 << 20, 1 << 29
_INDEX_TRIES, _LONGEST_ALIAS = 4, 255
_SETTLING_TIMEOUT, _SETTLING_AT_ONCE, _SETTLING_PAUSE = 2.0, 0.01, 0.005
"""Seconds: a wire may take so long to come up, others wait so long for it, and so often it is looked at."""
_HANDSHAKE_TIMEOUT, _HANDSHAKE_PAUSE = 8.0, 0.002
"""Seconds: WireGuard itself tries again after five."""


@dataclass(slots=True)
class _End:
    """One end of a wire that exists, or is about to."""

    namespace: Namespace
    place: Place
    index: int
    mac: str
    number: int | None = None
    """By which the kernel knows the namespace while it is let go, and `namespace` is not to be used."""


@dataclass(slots=True)
class LiveWire:
    """A wire that exists, and what it is set to."""

    wire: Wire
    ends: tuple[_End, ...]
    alias: str
    process: Process | None = None
    """What makes it a WireGuard in userspace."""
    seconds: float = 0.0
    """How long the kernel's part of making it took."""
    is_settled: bool = False
    """Whether packets were seen to pass since it was last set."""

    @property
    def is_loose(self) -> bool:
        """Whether its namespaces were let go."""
        return any(end.number is not None for end in self.ends)


class Dataplane:
    """The wires of one forwarder. `owner` is written into the alias of everything that it makes.

    With `in_node` wires may end in the node's own network namespace.
    """

    def __init__(self, owner: str, *, in_node: bool = False) -> None:
        self._owner, self._may_end_in_node = owner, in_node
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="netlink-remove")
        self._namespaces: Namespaces | None = None
        self._aliases: set[str] = set()
        """Those of the wires that this process made or adopted."""
        self._has_wireguard: bool | None = None
        self._programs = Programs(self._in_node)
        self._tagged = TaggedLinks(owner)
        self._underlays = underlay.Underlays(self._look, self._in_worker)
        self._removing: list[tuple[LiveWire, asyncio.Future[None]]] = []
        self._is_removing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """The interface that carries tunnels from our address `own` to `peer`, or to anybody.

        Raises `Conflict` if the address is on no interface, or that is down; `Unavailable` if no route leads to `peer`.
        """
        return await self._underlays.find(own, peer)

    async def uplink(self, name: str) -> Underlay:
        """An interface of the node, by its name. Raises `Conflict` if it is not there, or down."""
        link = await self._in_node(lambda spaces: underlay.uplink(spaces.own.socket, name))
        return Underlay(link.name, link.mtu)

    async def free_udp_port(self, wanted: int, taken: Collection[int]) -> int:
        """`wanted` if it is free on this node, else any that is and not in `taken`. Raises `Exhausted`."""
        return await self._in_worker(lambda: underlay.free_udp_port(wanted, taken))

    async def check_wireguard(self) -> None:
        """Raise `Unsupported` if neither the kernel has WireGuard nor a program can make it."""
        if not await self._kernel_has_wireguard():
            wireguard_go.check()

    def begin_wireguard(self, room: int, path: str) -> Ahead:
        """Do ahead of `create` what takes long where the kernel has no WireGuard: start a process.

        `path` is the file of the namespace where the wire will end, `room` the MTU that the underlay leaves.
        """
        return Ahead(self._begin_wireguard(room, path), self._programs)

    async def _begin_wireguard(self, room: int, path: str) -> Process | None:
        return None if await self._kernel_has_wireguard() else await self._programs.start(path, room)

    async def create(self, wire: Wire, connection_id: str, ahead: Ahead | None = None) -> LiveWire:
        """Make a wire; returns when packets can pass. `ahead` is what was begun of it.

        What an earlier process of this owner made for the same connection is adopted as it is; what else such a
        process left under one of the names is removed. Raises `Conflict` if an interface name is taken (`VniTaken` if
        a VNI is), `InvalidRequest` if a namespace is none, `NetlinkError`; nothing is left of it then.
        """
        alias = _alias(self._owner, connection_id)
        process = await self._process(wire, ahead)
        making = asyncio.ensure_future(self._in_worker(lambda: self._create(wire, alias, process)))
        try:
            live = await asyncio.shield(making)
        except BaseException:
            await shielded(self._take_back(making, process), name="removal of a wire that nobody waited for")
            raise
        try:
            await self._until_settled(live)
        except BaseException:
            await shielded(self.remove(live), name="removal of a wire that does not come up")
            raise
        if isinstance(wire.tunnel, Wireguard) and wire.tunnel.is_client:
            await self._establish(live, wire.tunnel)
        return live

    async def _until_settled(self, live: LiveWire) -> None:
        """Wait for a wire that takes longer to come up than others; they need not wait for it. Raises `Conflict`."""
        end = time.monotonic() + _SETTLING_TIMEOUT
        while not live.is_settled:
            if time.monotonic() >= end:
                name, where = live.ends[0].place.name, live.ends[0].namespace.where
                raise Conflict(f"interface {name!r} in {where} does not come up")
            await asyncio.sleep(_SETTLING_PAUSE)
            await self._in_worker(lambda: self._settle(live, 0.0))

    async def _process(self, wire: Wire, ahead: Ahead | None) -> Process | None:
        """The process that the wire needs: the one that was begun with if that is of use."""
        if not isinstance(wire.tunnel, Wireguard) or await self._kernel_has_wireguard():
            return None
        if ahead is not None and (process := await ahead.claim()) is not None:
            if process.is_running() and process.path == wire.places[0].path:
                return process
            await self._programs.end([process])
        return await self._programs.start(wire.places[0].path, wire.tunnel.room)

    async def _take_back(self, making: asyncio.Future[LiveWire], process: Process | None) -> None:
        """The thread goes on when its caller is cancelled: let it end, and remove what it made."""
        try:
            await self.remove(await making)
        except Exception:
            if process is not None:
                await self._programs.end([process])

    async def _establish(self, live: LiveWire, tunnel: Wireguard) -> None:
        """Wait until the peer was heard: a tunnel that was told to its client works. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                while not await self._in_worker(lambda: self._last_handshake(live)):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_HANDSHAKE_PAUSE)
        except BaseException as error:
            await shielded(self.remove(live), name="removal of a wire that was not established")
            if isinstance(error, TimeoutError):
                where = f"node {tunnel.peer} (UDP port {tunnel.peer_port})"
                after = f"after {_HANDSHAKE_TIMEOUT:.0f} s"
                raise Unavailable(f"{where} does not answer WireGuard {after}; is UDP let through?") from None
            raise

    async def change(self, live: LiveWire, wire: Wire) -> None:
        """Set an existing wire to `wire`: what is not wanted any more goes, what is unchanged is not touched."""
        await self._in_worker(lambda: self._change(live, wire))
        await self._until_settled(live)

    async def exists(self, live: LiveWire) -> bool:
        """Whether the wire is still there: its namespaces' owners may have removed it."""
        end = live.ends[0]
        return await self._in_worker(lambda: end.namespace.socket.has_link(end.index))

    async def let_go(self, live: LiveWire) -> None:
        """Keep its namespaces open no longer: one that nobody else has ends, and the wire with it.

        The wire can still be counted and removed; `hold_again` has to come before anything else. One that a process
        makes stays, and so does an end that has default routes.
        """
        await self._in_worker(lambda: self._loosen(live))

    async def hold_again(self, live: LiveWire, wire: Wire) -> bool:
        """Have the namespaces of a wire at its places in `wire`, which have other paths; whether the wire is there."""
        return await self._in_worker(lambda: self._hold_again(live, wire))

    async def traffic(self, wires: Sequence[LiveWire]) -> list[list[Traffic | None]]:
        """What has passed each end of each wire; None for an end that is gone."""
        return await self._in_worker(lambda: [self._traffic(live) for live in wires])

    async def remove(self, live: LiveWire) -> None:
        """Remove a wire, together with all others whose removal is asked for meanwhile; gone already is fine."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._removing.append((live, done))
        if not self._is_removing:
            self._is_removing = True
            task = asyncio.get_running_loop().create_task(self._remove_all(), name="remove wires")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(done)
        finally:
            await self._in_worker(lambda: self._let_go(live))

    async def aclose(self) -> None:
        """Stop; the wires stay, but for those that a process of ours makes."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._programs.aclose()
        await self._in_worker(self._underlays.close)
        if self._namespaces is not None:
            await self._in_worker(self._namespaces.close)
        self._worker.shutdown()
        self._remover.shutdown()

    def open_namespaces(self) -> int:
        """How many namespaces are held: what a leak test counts."""
        return len(self._namespaces) if self._namespaces is not None else 0

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _in_node(self, work: Callable[[Namespaces], T]) -> T:
        return await self._in_worker(lambda: work(self._opened()))

    async def _kernel_has_wireguard(self) -> bool:
        if self._has_wireguard is None:
            self._has_wireguard = await self._in_node(_has_wireguard)
        return self._has_wireguard

    async def _look(self, own: Address, peer: Address | None) -> Underlay:
        return await self._in_node(lambda spaces: underlay.look(spaces.own.socket, own, peer))

    # --- in the worker's thread

    def _opened(self) -> Namespaces:
        if self._namespaces is None:
            self._namespaces = Namespaces(with_own=self._may_end_in_node)
            self._tagged.clear(self._namespaces.own)
        return self._namespaces

    def _create(self, wire: Wire, alias: str, process: Process | None) -> LiveWire:
        begin = time.perf_counter()
        with contextlib.ExitStack() as undo:
            namespaces = []
            for place in wire.places:
                namespaces.append(self._opened().take(place.path))
                undo.callback(self._opened().give, namespaces[-1])
            self._protect_node(wire, namespaces)
            lower = 0
            if isinstance(wire.tunnel, Breakout):
                lower = self._tagged.take(self._opened().own, wire.tunnel)
                undo.callback(self._tagged.give, self._opened().own, wire.tunnel)
            live = self._make(wire, namespaces, alias, links.Means(process, lower))
            undo.pop_all()
        self._aliases.add(alias)
        live.seconds = time.perf_counter() - begin
        return live

    def _protect_node(self, wire: Wire, namespaces: Sequence[Namespace]) -> None:
        """An end in the node's own namespace must not take anything from the node. Raises `Refused`."""
        own = self._opened().own
        for end, namespace in zip(wire.ends, namespaces, strict=True):
            if os.path.sameopenfile(namespace.descriptor, own.descriptor):
                check_own_namespace(end.settings, Networks(read_underlay()))

    def _make(self, wire: Wire, namespaces: Sequence[Namespace], alias: str, means: links.Means) -> LiveWire:
        for _ in range(_INDEX_TRIES):
            ends = [_new_end(*at, has_mac=links.has_mac(wire)) for at in zip(namespaces, wire.places, strict=True)]
            if means.process is not None:
                ends[0].index = means.process.index
            live = LiveWire(wire, tuple(ends), alias, means.process)
            try:
                links.make(self._opened().own, namespaces[0], wire, [_link(end) for end in ends], means)
            except NetlinkError as error:
                if (there := self._adopt(live, means)) is not None:
                    return there
                if not self._remove_leftovers(ends):
                    self._explain(error, wire, ends)
                continue
            try:
                links.prepare(namespaces[0], wire, ends[0].index, means.process)
                _refuse_advertisements(live)
                self._configure(live)
            except BaseException:
                ends[-1].namespace.socket.apply([delete_link(ends[-1].index)], ignore=_GONE)
                raise
            return live
        raise Conflict(f"found no free interface index for {wire.places[0].name}")

    def _adopt(self, live: LiveWire, means: links.Means) -> LiveWire | None:
        """The wire that is there already for this very connection, set to what is wanted."""
        found = [end.namespace.socket.link(name=end.place.name) for end in live.ends]
        there = [link for link in found if link is not None and link.alias == live.alias]
        if len(there) < len(found) or not links.is_as_wanted(live.wire, there, means):
            return None
        live.ends = tuple(
            _End(end.namespace, end.place, link.index, link.mac) for end, link in zip(live.ends, there, strict=True)
        )
        _refuse_advertisements(live)
        for end, _, settings in _sides(live, live.wire):
            messages, defaults = end_changes.obsolete(end.namespace.socket, end.index, live.wire, settings)
            self._apply(live, end, messages)
            default_routes.remove(end.namespace.socket, end.index, defaults)
        self._configure(live)
        return live

    def _remove_leftovers(self, ends: Sequence[_End]) -> bool:
        """Remove what stands in the way and is an earlier process's; says whether there was anything."""
        found = False
        for end in ends:
            taken = end.namespace.socket.link(name=end.place.name)
            if taken is not None and self._is_leftover(taken.alias):
                end.namespace.socket.apply([delete_link(taken.index)], ignore=_GONE)
                found = True
        return found

    def _is_leftover(self, alias: str) -> bool:
        return alias.startswith(f"nsm {self._owner} ") and alias not in self._aliases

    def _explain(self, error: NetlinkError, wire: Wire, ends: Sequence[_End]) -> None:
        """Raise what a refused creation means; returns if another index may help."""
        for end in ends:
            taken = end.namespace.socket.link(name=end.place.name)
            if taken is not None:
                whose = f", by {taken.alias!r}" if taken.alias else ""
                raise Conflict(f"interface name {end.place.name!r} is taken in {end.namespace.where}{whose}") from error
        links.explain_refusal(error, wire)
        if error.errno not in (errno.EEXIST, errno.EBUSY):
            raise error

    def _configure(self, live: LiveWire) -> None:
        for end, mac, settings in _sides(live, live.wire):
            first = set_up(end.index, live.alias, proxy_arp=settings.proxy_arp or None)
            wanted = end_changes.everything(end.namespace.socket, end.index, live.wire, settings, mac)
            self._apply(live, end, [first, *wanted])
        self._settle(live, _SETTLING_AT_ONCE)

    def _settle(self, live: LiveWire, timeout: float) -> None:
        """See whether the first packet would arrive: the kernel finishes carrier and addresses when it finds the time.

        The carrier comes with the second end, so this is for both ends when both are set. What takes longer than
        `timeout` is looked at again later: whoever holds an end can keep it from coming up.
        """
        has_carrier = links.has_carrier_watch(live.wire)
        end_of_wait = time.monotonic() + timeout
        for end, _, settings in _sides(live, live.wire):
            socket, addresses = end.namespace.socket, [address.ip for address in settings.addresses]
            left = max(0.0, end_of_wait - time.monotonic())
            if not socket.settle(end.index, addresses, left, has_carrier=has_carrier):
                live.is_settled = False
                return
        live.is_settled = True

    def _change(self, live: LiveWire, wire: Wire) -> None:
        self._protect_node(wire, [end.namespace for end in live.ends])
        before = [settings for _, _, settings in _sides(live, live.wire)]
        for (end, mac, after), now in zip(_sides(live, wire), before, strict=True):
            messages = end_changes.differences(end.namespace.socket, end.index, wire, now, after, mac)
            if wire.mtu and wire.mtu != live.wire.mtu:
                messages.insert(0, set_mtu(end.index, wire.mtu))
            if after.proxy_arp != now.proxy_arp:
                messages.insert(0, set_up(end.index, live.alias, proxy_arp=after.proxy_arp))
            self._apply(live, end, messages)
            families = {prefix.version for prefix, _ in after.defaults}
            gone = [route for route in now.defaults if route[0].version not in families]
            default_routes.remove(end.namespace.socket, end.index, gone)
        if wire.mtu != live.wire.mtu:
            _refuse_advertisements(live)  # below 1280 there was no IPv6
        live.wire = wire
        self._settle(live, _SETTLING_AT_ONCE)

    def _apply(self, live: LiveWire, end: _End, messages: Sequence[Message]) -> None:
        try:
            end.namespace.socket.apply(messages)
        except NetlinkError as error:
            links.explain_down(error, live.wire)
            if error.errno != errno.EACCES:
                raise
            end.namespace.enable_ipv6(end.place.name)
            end.namespace.socket.apply(messages)

    def _last_handshake(self, live: LiveWire) -> int:
        return links.last_handshake(live.ends[0].namespace, live.ends[0].index, live.process)

    def _traffic(self, live: LiveWire) -> list[Traffic | None]:
        is_there = live.alias in self._aliases  # else its namespaces may be closed by now
        return [self._passed(end) if is_there else None for end in live.ends]

    def _passed(self, end: _End) -> Traffic | None:
        if end.number is not None:
            return self._opened().own.socket.traffic(end.index, end.number)
        return end.namespace.socket.traffic(end.index)

    def _loosen(self, live: LiveWire) -> None:
        own = self._opened().own
        if live.process is not None or live.alias not in self._aliases:
            return
        for end, _, settings in _sides(live, live.wire):
            if settings.defaults:
                continue  # rules have to go from there with the wire
            if end.number is not None or os.path.sameopenfile(end.namespace.descriptor, own.descriptor):
                continue
            with contextlib.suppress(NetlinkError):  # a kernel that has no numbers: the namespace is kept
                end.number = own.socket.number_of(end.namespace.descriptor)
                self._opened().give(end.namespace)

    def _hold_again(self, live: LiveWire, wire: Wire) -> bool:
        names = [end.place.name for end in live.ends]
        if [place.name for place in wire.places] != names:
            return False
        for end, place in zip(live.ends, wire.places, strict=True):
            namespace = self._opened().take(place.path)
            is_there = namespace is end.namespace if end.number is None else self._is_end(namespace, end, live.alias)
            if end.number is None or not is_there:
                self._opened().give(namespace)
            if not is_there:
                return False
            end.namespace, end.place, end.number = namespace, place, None
        ends = [replace(each, place=end.place) for each, end in zip(live.wire.ends, live.ends, strict=True)]
        live.wire = replace(live.wire, ends=tuple(ends))
        return True

    def _is_end(self, namespace: Namespace, end: _End, alias: str) -> bool:
        link = namespace.socket.link(index=end.index)
        return link is not None and (link.name, link.alias) == (end.place.name, alias)

    def _let_go(self, live: LiveWire) -> None:
        self._aliases.discard(live.alias)
        if isinstance(live.wire.tunnel, Breakout):
            self._tagged.give(self._opened().own, live.wire.tunnel)
        for end, _, settings in _sides(live, live.wire):
            if end.number is None:
                with contextlib.suppress(NetlinkError):  # rules without their link change nothing
                    default_routes.remove(end.namespace.socket, end.index, settings.defaults)
                self._opened().give(end.namespace)

    # --- removal

    async def _remove_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._removing:
            batch, self._removing = self._removing, []
            ends = [_to_remove(live.ends) for live, _ in batch if live.process is None]
            processes = [live.process for live, _ in batch if live.process is not None]
            try:
                await loop.run_in_executor(self._remover, _remove_links, ends, self._opened().own)
                await self._programs.end(processes)
            except Exception as error:
                for _, done in batch:
                    done.set_exception(error)
                    done.exception()
            else:
                for _, done in batch:
                    done.set_result(None)
        self._is_removing = False


def _alias(owner: str, connection_id: str) -> str:
    """What is written on both ends; the kernel takes 255 bytes, so of a long id there is only its digest."""
    alias = f"nsm {owner} {connection_id}"
    if len(alias.encode()) <= _LONGEST_ALIAS:
        return alias
    return f"nsm {owner} {hashlib.sha256(connection_id.encode()).hexdigest()}"


def _to_remove(ends: Sequence[_End]) -> _End:
    """The end by which a wire is removed: the last one whose namespace is held, if there is one."""
    return next((end for end in reversed(ends) if end.number is None), ends[-1])


def _remove_links(ends: Sequence[_End], own: Namespace) -> None:
    """Remove links, those of one namespace in one message; what was let go by the numbers that `own` knows."""
    by_namespace: dict[int, list[_End]] = {}
    for end in ends:
        if end.number is None:
            by_namespace.setdefault(id(end.namespace), []).append(end)
    for group in by_namespace.values():
        _apply_in(group[0].namespace, _removal([end.index for end in group]))
    if loose := [delete_link_there(end.index, end.number) for end in ends if end.number is not None]:
        _apply_in(own, loose)


def _apply_in(namespace: Namespace, messages: Sequence[Message]) -> None:
    """By a socket of its own, since the worker uses the other one."""
    from .netlink.namespaces import entered  # noqa: PLC0415 - only this thread enters here
    from .netlink.sockets import Socket  # noqa: PLC0415

    with entered(namespace.descriptor):
        socket = Socket(namespace.where)
    with contextlib.closing(socket):
        socket.apply(messages, ignore=_GONE)


def _removal(indexes: Sequence[int]) -> list[Message]:
    if len(indexes) == 1:
        return [delete_link(indexes[0])]
    number = _FIRST_INDEX + secrets.randbelow(_INDEXES)
    return [*(set_group(index, number) for index in indexes), delete_group(number)]


def _sides(live: LiveWire, wire: Wire) -> list[tuple[_End, str, Settings]]:
    """Each end with the hardware address of the opposite one and its settings."""
    macs = [end.mac for end in reversed(live.ends)]
    return [(end, mac, each.settings) for end, mac, each in zip(live.ends, macs, wire.ends, strict=True)]


def _refuse_advertisements(live: LiveWire) -> None:
    """An end has the addresses and routes of its connection, and none that somebody on the wire advertises."""
    for number, end in enumerate(live.ends):
        if not (live.wire.accept_ra and number == 0):
            end.namespace.refuse_advertisements(end.place.name)


def _link(end: _End) -> LinkEnd:
    return LinkEnd(end.place.name, end.index, end.mac, end.namespace.descriptor)


def _new_end(namespace: Namespace, place: Place, *, has_mac: bool) -> _End:
    return _End(namespace, place, _new_index(), _new_mac() if has_mac else "")


def _has_wireguard(spaces: Namespaces) -> bool:
    try:
        spaces.own.wireguard()
    except NetlinkError:
        return False
    return True


def _new_index() -> int:
    """An index that nobody has: the kernel counts up from 1, so anything high and random is free."""
    return _FIRST_INDEX + secrets.randbelow(_INDEXES)


def _new_mac() -> str:
    """A locally administered unicast address."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)
