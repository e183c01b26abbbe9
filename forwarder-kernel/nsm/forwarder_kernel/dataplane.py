"""Makes, changes and removes wires: veth pairs between workloads of this node, and the ends of tunnels to others.

What talks to the kernel runs in a thread (`kernel_thread`, `wire_maker`), removals in one of their own (`removal`);
what a wire is made of is a `Device`, of a class for each kind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from nsm.chains.core import Conflict, Unavailable, shielded

from . import underlay, wireguard_go
from .devices import Device, KernelWireguard, Macvlan, UserWireguard, Veth, VxlanDevice
from .ends import Wire
from .kernel_thread import KernelThread
from .live_wire import LiveWire
from .mend import Report, mend
from .netlink import Address, Listener, Namespaces, NetlinkError, Traffic
from .removal import Removal
from .tagged_links import TaggedLinks
from .tunnels import Breakout, Underlay, Vxlan, Wireguard
from .wire_maker import WireMaker, settle
from .wireguard_go import Ahead, Process, Programs

T = TypeVar("T")

_SETTLING_TIMEOUT, _SETTLING_PAUSE = 2.0, 0.005
"""Seconds: others wait so long for a wire to come up, and so often it is looked at."""
_HANDSHAKE_TIMEOUT, _HANDSHAKE_PAUSE = 8.0, 0.002
"""Seconds: WireGuard itself tries again after five."""


class Dataplane:
    """The wires of one forwarder. `owner` is written into the alias of everything that it makes.

    With `in_node` wires may end in the node's own network namespace.
    """

    def __init__(self, owner: str, *, in_node: bool = False) -> None:
        self._tagged = TaggedLinks(owner)
        self.kernel = KernelThread(in_node=in_node, when_opened=lambda spaces: self._tagged.clear(spaces.own))
        self._maker = WireMaker(owner)
        self._programs = Programs(self.kernel.in_node)
        self._removal = Removal(self.kernel, self._programs.end)
        self._underlays = underlay.Underlays(self._look, self.kernel.run)
        self._has_wireguard: bool | None = None

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """The interface that carries tunnels from our address `own` to `peer`, or to anybody.

        Raises `Conflict` if the address is on no interface, or that is down; `Unavailable` if no route leads to `peer`.
        """
        return await self._underlays.find(own, peer)

    async def uplink(self, name: str) -> Underlay:
        """An interface of the node, by its name. Raises `Conflict` if it is not there, or down."""
        link = await self.kernel.in_node(lambda spaces: underlay.uplink(spaces.own.socket, name))
        return Underlay(link.name, link.mtu)

    async def free_udp_port(self, wanted: int, taken: Collection[int]) -> int:
        """`wanted` if it is free on this node, else any that is and not in `taken`. Raises `Exhausted`."""
        return await self.kernel.run(lambda: underlay.free_udp_port(wanted, taken))

    async def check_wireguard(self) -> None:
        """Raise `Unsupported` if neither the kernel has WireGuard nor a program can make it."""
        if not await self._kernel_has_wireguard():
            wireguard_go.check()

    def begin_wireguard(self, room: int, path: str) -> Ahead:
        """Do ahead of `create` what takes long where the kernel has no WireGuard: start a process.

        `path` is the file of the namespace where the wire will end, `room` the MTU that the underlay leaves.
        """
        return Ahead(self._begin_wireguard(room, path), self._programs)

    async def create(self, wire: Wire, connection_id: str, ahead: Ahead | None = None) -> LiveWire:
        """Make a wire; returns when packets can pass. `ahead` is what was begun of it.

        What an earlier process of this owner made for the same connection is adopted as it is; what else such a
        process left under one of the names is removed. Raises `Conflict` if an interface name is taken (`VniTaken` if
        a VNI is), `InvalidRequest` if a namespace is none, `NetlinkError`; nothing is left of it then.
        """
        alias = self._maker.alias_of(connection_id)
        device = await self._device(wire, ahead)
        work = self.kernel.in_node(lambda spaces: self._maker.create(spaces, wire, alias, device))
        making = asyncio.ensure_future(work)
        try:
            live = await asyncio.shield(making)
        except BaseException:
            await shielded(self._take_back(making, device), name="removal of a wire that nobody waited for")
            raise
        try:
            await self._until_settled(live)
        except BaseException:
            await shielded(self.remove(live), name="removal of a wire that does not come up")
            raise
        if isinstance(wire.tunnel, Wireguard) and wire.tunnel.is_client:
            await self._establish(live, wire.tunnel)
        return live

    async def change(self, live: LiveWire, wire: Wire) -> None:
        """Set an existing wire to `wire`: what is not wanted any more goes, what is unchanged is not touched."""
        await self.kernel.in_node(lambda spaces: self._maker.change(spaces, live, wire))
        await self._until_settled(live)

    async def exists(self, live: LiveWire) -> bool:
        """Whether the wire is still there: its namespaces' owners may have removed it."""
        end = live.ends[0]
        return await self.kernel.run(lambda: end.namespace.socket.has_link(end.index))

    async def mend(self, live: LiveWire, *, do: bool) -> Report:
        """Look at a wire; with `do` put right what somebody changed. Raises `NetlinkError`."""

        def look(spaces: Namespaces) -> Report:
            return mend(spaces, live, do=do) if self._maker.knows(live) else Report()

        return await self._while_open(look, Report())

    async def remake(self, live: LiveWire) -> bool:
        """Make a wire whose links were deleted anew, with the indexes, names and hardware addresses that they had.

        Says whether that was possible from here; nothing is left if not. Raises what `create` raises.
        """
        return await self._while_open(lambda spaces: self._maker.remake(spaces, live), False)

    async def listen(self) -> Listener:
        """The news of what others change on wires. Raises `Refused` if this process may not have them."""
        return await self.kernel.in_node(lambda _: Listener())

    async def let_go(self, live: LiveWire) -> None:
        """Keep its namespaces open no longer: one that nobody else has ends, and the wire with it.

        The wire can still be counted, mended and removed; `hold_again` has to come before anything else. One that a
        process makes stays.
        """
        await self._while_open(lambda spaces: self._maker.let_go(spaces, live), None)

    async def hold_again(self, live: LiveWire, wire: Wire) -> bool:
        """Have the namespaces of a wire at its places in `wire`, which have other paths; whether the wire is there."""
        return await self.kernel.in_node(lambda spaces: self._maker.hold_again(spaces, live, wire))

    async def traffic(self, wires: Sequence[LiveWire]) -> list[list[Traffic | None]]:
        """What has passed each end of each wire; None for an end that is gone."""
        return await self.kernel.in_node(lambda spaces: [self._maker.traffic(spaces, live) for live in wires])

    async def remove(self, live: LiveWire) -> None:
        """Remove a wire, together with all others whose removal is asked for meanwhile; gone already is fine."""
        try:
            await self._removal.remove(live)
        finally:
            await self.kernel.in_node(lambda spaces: self._maker.forget(spaces, live))

    async def aclose(self) -> None:
        """Stop; the wires stay, but for those that a process of ours makes."""
        await self._removal.aclose()
        await self._programs.aclose()
        await self.kernel.run(self._underlays.close)
        await self.kernel.aclose()

    def open_namespaces(self) -> int:
        """How many namespaces are held: what a leak test counts."""
        return len(self.kernel)

    async def _while_open(self, work: Callable[[Namespaces], T], otherwise: T) -> T:
        """What `work` returns, or `otherwise`: timers of connections may fire while this is being closed."""
        if self.kernel.is_closed:
            return otherwise
        return await self.kernel.run(lambda: otherwise if self.kernel.is_closed else work(self.kernel.namespaces))

    async def _look(self, own: Address, peer: Address | None) -> Underlay:
        return await self.kernel.in_node(lambda spaces: underlay.look(spaces.own.socket, own, peer))

    # --- devices

    async def _device(self, wire: Wire, ahead: Ahead | None) -> Device:
        match wire.tunnel:
            case None:
                return Veth()
            case Vxlan() as vxlan:
                return VxlanDevice(vxlan)
            case Breakout() as breakout:
                return Macvlan(breakout, self._tagged)
            case Wireguard() as wireguard:
                if await self._kernel_has_wireguard():
                    return KernelWireguard(wireguard)
                return UserWireguard(wireguard, await self._process(wire.places[0].path, wireguard.room, ahead))

    async def _kernel_has_wireguard(self) -> bool:
        if self._has_wireguard is None:
            self._has_wireguard = await self.kernel.in_node(_has_wireguard)
        return self._has_wireguard

    async def _begin_wireguard(self, room: int, path: str) -> Process | None:
        return None if await self._kernel_has_wireguard() else await self._programs.start(path, room)

    async def _process(self, path: str, room: int, ahead: Ahead | None) -> Process:
        """The process that a wire needs: the one that was begun with if that is of use."""
        if ahead is not None and (process := await ahead.claim()) is not None:
            if process.is_running() and process.path == path:
                return process
            await self._programs.end([process])
        return await self._programs.start(path, room)

    # --- waiting for wires

    async def _until_settled(self, live: LiveWire) -> None:
        """Wait for a wire that takes longer to come up than others; they need not wait for it. Raises `Conflict`."""
        end = time.monotonic() + _SETTLING_TIMEOUT
        while not live.is_settled:
            if time.monotonic() >= end:
                name, where = live.ends[0].place.name, live.ends[0].namespace.where
                raise Conflict(f"interface {name!r} in {where} does not come up")
            await asyncio.sleep(_SETTLING_PAUSE)
            await self.kernel.run(lambda: settle(live, 0.0))

    async def _take_back(self, making: asyncio.Future[LiveWire], device: Device) -> None:
        """The thread goes on when its caller is cancelled: let it end, and remove what it made."""
        try:
            await self.remove(await making)
        except Exception:
            if device.process is not None:
                await self._programs.end([device.process])

    async def _establish(self, live: LiveWire, tunnel: Wireguard) -> None:
        """Wait until the peer was heard: a tunnel that was told to its client works. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                while not await self._last_handshake(live):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_HANDSHAKE_PAUSE)
        except BaseException as error:
            await shielded(self.remove(live), name="removal of a wire that was not established")
            if isinstance(error, TimeoutError):
                where = f"node {tunnel.peer} (UDP port {tunnel.peer_port})"
                after = f"after {_HANDSHAKE_TIMEOUT:.0f} s"
                raise Unavailable(f"{where} does not answer WireGuard {after}; is UDP let through?") from None
            raise

    async def _last_handshake(self, live: LiveWire) -> int:
        end = live.ends[0]
        return await self.kernel.run(lambda: live.device.last_handshake(end.namespace, end.index))


def _has_wireguard(spaces: Namespaces) -> bool:
    try:
        spaces.own.wireguard()
    except NetlinkError:
        return False
    return True
