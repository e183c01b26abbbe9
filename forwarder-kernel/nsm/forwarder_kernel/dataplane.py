"""Makes, changes and removes wires: veth pairs between workloads of this node, and the ends of tunnels to others.

Kernel calls run in a thread (`kernel_thread`, `wire_maker`), removals in one of their own (`removal`);
what a wire is made of is a `Device`, of a class for each kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from nsm.chains.core import Conflict, MeshError, Unavailable, Unsupported, shielded
from nsm.chains.forwarding.dataplane import NOBODY, Client, Underlay
from nsm.chains.forwarding.keep import Report
from nsm.chains.forwarding.sides import Breakout, KernelInterface, Vxlan, Wireguard
from nsm.chains.forwarding.wires import Wire
from nsm.chains.model.addresses import Address
from nsm.chains.model.traffic import Traffic
from nsm.chains.model.wireguard import WireguardSettings
from nsm.chains.netlink import Listener, Namespaces, NetlinkError

from . import underlay, wireguard_go
from .devices import Device, KernelWireguard, Macvlan, UserWireguard, Veth, VxlanDevice
from .kernel_thread import KernelThread
from .ledger import Ledger
from .live_wire import LiveWire
from .mend import mend
from .owned import Owned
from .removal import Removal
from .tagged_links import TaggedLinks
from .wire_maker import WireMaker, settle
from .wireguard_go import Ahead, Process, Programs, key_at

T = TypeVar("T")

_SETTLING_TIMEOUT, _SETTLING_PAUSE = 2.0, 0.005
"""Seconds: the time that others wait for a wire to come up, and the pause between checks."""
CLAIM_WITHIN = 600.0
"""Seconds: the longest time until a client with tokens of the usual lifetime requests again."""
_HANDSHAKE_TIMEOUT, _HANDSHAKE_PAUSE = 8.0, 0.002
"""Seconds: WireGuard itself tries again after five."""


class Dataplane:
    """The wires of one forwarder. `owner` is written into the alias of every link that it makes.

    With `in_node` wires may end in the node's own network namespace. Connections have `claim_within` seconds after the
    start to claim what an earlier process of this owner made for them.
    """

    def __init__(self, owner: str, *, in_node: bool = False, claim_within: float = CLAIM_WITHIN) -> None:
        self._tagged = TaggedLinks(owner)
        self.kernel = KernelThread(in_node=in_node, when_opened=self._look_around)
        self._ledger = Ledger(owner, claim_within)
        self._maker = WireMaker(self._ledger)
        self._programs = Programs(self.kernel.in_node, self._ledger.processes)
        self._removal = Removal(self.kernel, self._programs.end)
        self._underlays = underlay.Underlays(self._look, self.kernel.run)
        self._has_wireguard: bool | None = None

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """The interface that carries tunnels from our address `own` to `peer`, or to any address.

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
        """Raise `Unsupported` if neither the kernel has WireGuard nor a program can provide it."""
        if not await self._kernel_has_wireguard():
            wireguard_go.check()

    def begin_wireguard(self, room: int, side: KernelInterface, connection_id: str) -> Ahead:
        """Start in advance what takes long if the kernel has no WireGuard: a process.

        `side` is where the wire will end, `room` the MTU that the underlay leaves.
        """
        return Ahead(self._begin_wireguard(room, side.path, self._ledger.alias_of(connection_id)), self._programs)

    def former_vni(self, connection_id: str) -> int | None:
        """The number of the VXLAN device that an earlier process made for a connection, if it is still there."""
        former = self._ledger.former(self._ledger.alias_of(connection_id))
        return next((link.vni for link in former if link.vni), None)

    async def former_wireguard(self, connection_id: str) -> WireguardSettings | None:
        """Key and port of the WireGuard that an earlier process made for a connection, if it is still there."""
        alias = self._ledger.alias_of(connection_id)
        if not self._ledger.former(alias) and self._programs.former(alias) is None:
            return None
        return await self.kernel.in_node(lambda spaces: self._former_wireguard(spaces, alias))

    async def create(
        self, wire: Wire, connection_id: str, begun: Ahead | None = None, client: Client = NOBODY
    ) -> LiveWire:
        """Make a wire; returns when packets can pass. `begun` is the part begun in advance, `client` its owner.

        A wire that an earlier process of this owner made for the same connection is adopted unchanged, or removed if it
        does not match. A link with one of the names, or a route to the client's addresses, is removed if an earlier
        process left it, or if it is the same client's; see `LiveWire.superseded`. Raises `Conflict` if a name
        or an address is another's (`VniTaken` for a VNI), `InvalidRequest` for an invalid namespace, `Unsupported`,
        `NetlinkError`; nothing is left of the wire then.
        """
        alias = self._ledger.alias_of(connection_id)
        device = await self.device(wire, alias, begun)
        work = self.kernel.in_node(lambda spaces: self._maker.create(spaces, wire, alias, device, client))
        making = asyncio.ensure_future(work)
        try:
            live = await asyncio.shield(making)
            live.connection_id = connection_id
        except BaseException:
            await shielded(self._take_back(making, device, connection_id), name="removal of a wire that is not needed")
            raise
        try:
            await self._until_settled(live)
        except BaseException:
            await shielded(self.remove(connection_id), name="removal of a wire that does not come up")
            raise
        await self._end_superseded(live)
        if device.process is not None:
            self._programs.watch(device.process)
        tunnel = wire.tunnel
        if isinstance(tunnel, Wireguard) and tunnel.is_client:
            await self._establish(live, connection_id, tunnel)
        return live

    async def change(self, live: LiveWire, wire: Wire) -> None:
        """Set an existing wire to `wire`: settings it no longer has are removed, unchanged ones are not touched."""
        await self.kernel.in_node(lambda spaces: self._maker.change(spaces, live, wire))
        await self._until_settled(live)
        await self._end_superseded(live)

    async def resume(self, live: LiveWire, wire: Wire) -> bool:
        """Whether the wire still exists and is between the sides of `wire`; namespaces are open again then."""
        return await self.kernel.in_node(lambda spaces: self._maker.resume(spaces, live, wire))

    async def mend(self, live: LiveWire, *, do: bool) -> Report:
        """Check a wire; with `do` repair what others changed. Raises `NetlinkError`."""

        def look(spaces: Namespaces) -> Report:
            return mend(spaces, live, do=do) if self._ledger.has(live) else Report()

        return await self._while_open(look, Report())

    async def remake(self, live: LiveWire) -> bool:
        """Make a wire again whose links were deleted, with their former indexes, names and hardware addresses.

        Returns whether that was possible from here; nothing is left if not. Raises what `create` raises.
        """
        return await self._while_open(lambda spaces: self._maker.remake(spaces, live), False)

    async def listen(self) -> Listener:
        """The kernel's news of changes to wires. Raises `Refused` if this process may not receive them."""
        return await self.kernel.in_node(lambda _: Listener())

    async def let_go(self, live: LiveWire) -> None:
        """Stop keeping its namespaces open: one without other users ends, and the wire with it.

        The wire can still be counted, repaired and removed; `resume` has to be called before anything else.
        """
        await self._while_open(lambda spaces: self._maker.let_go(spaces, live), None)

    async def traffic(self, wires: Sequence[LiveWire]) -> list[tuple[Traffic | None, Traffic | None]]:
        """The traffic of each wire's client's and endpoint's interface; None for one that is gone, or elsewhere."""
        return await self.kernel.in_node(lambda spaces: [self._maker.traffic(spaces, live) for live in wires])

    async def owned(self) -> list[Owned]:
        """The wires of this owner, made by any process, according to the kernel."""
        return await self.kernel.in_node(self._owned)

    async def remove(self, connection_id: str) -> None:
        """Remove the wire of a connection, made by any process of this owner; one that is gone already is fine.

        Removals that are requested meanwhile are done together.
        """
        alias = self._ledger.alias_of(connection_id)
        if (live := self._ledger.live(alias)) is None:
            await self._remove_former([alias])
            return
        live.is_leaving = True
        try:
            await self._removal.remove(live)
        finally:
            await self.kernel.in_node(lambda spaces: self._maker.forget(spaces, live))

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """Remove wires of an earlier process, unless a connection has claimed them meanwhile."""
        await self._remove_former([self._ledger.alias_of(each) for each in connection_ids])

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        await self._removal.aclose()
        await self._programs.aclose()
        await self.kernel.run(self._underlays.close)
        await self.kernel.aclose()

    def open_namespaces(self) -> int:
        """The number of open namespaces, which a leak test counts."""
        return len(self.kernel)

    async def _while_open(self, work: Callable[[Namespaces], T], otherwise: T) -> T:
        """The result of `work`, or `otherwise`: timers of connections may fire while this is being closed."""
        if self.kernel.is_closed:
            return otherwise
        return await self.kernel.run(lambda: otherwise if self.kernel.is_closed else work(self.kernel.namespaces))

    async def _look(self, own: Address, peer: Address | None) -> Underlay:
        return await self.kernel.in_node(lambda spaces: underlay.look(spaces.own.socket, own, peer))

    # --- devices

    async def device(self, wire: Wire, alias: str, begun: Ahead | None) -> Device:
        """The device of a wire: the one place that knows which sides can be joined here. Raises `Unsupported`."""
        match [side for side in wire.sides if not isinstance(side, KernelInterface)]:
            case []:
                return Veth()
            case [Vxlan() as vxlan]:
                return VxlanDevice(vxlan)
            case [Breakout() as breakout]:
                return Macvlan(breakout, self._tagged)
            case [Wireguard() as wireguard]:
                if await self._kernel_has_wireguard():
                    return KernelWireguard(wireguard)
                return UserWireguard(wireguard, await self._process(wire.interfaces[0], wireguard, alias, begun))
        client, endpoint = wire.sides
        why = "; one side has to be KERNEL" if not wire.interfaces else ""
        raise Unsupported(f"a wire from {client.kind} to {endpoint.kind} cannot be made here{why}")

    async def _kernel_has_wireguard(self) -> bool:
        if self._has_wireguard is None:
            self._has_wireguard = await self.kernel.in_node(_has_wireguard)
        return self._has_wireguard

    async def _begin_wireguard(self, room: int, path: str, alias: str) -> Process | None:
        if await self._kernel_has_wireguard() or self._programs.former(alias) is not None:
            return None
        return await self._programs.start(path, room, alias)

    async def _process(self, place: KernelInterface, wireguard: Wireguard, alias: str, ahead: Ahead | None) -> Process:
        """The process that a wire needs: an earlier forwarder's, or the one started in advance, if it fits."""
        begun = await ahead.claim() if ahead is not None else None
        former = self._programs.claim_former(alias)
        if former is not None and not await self._is_as_wanted(former, wireguard):
            await self._programs.end([former])
            former = None
        there = [each for each in (former, begun) if each is not None]
        for process in there:
            if process.is_running() and process.key == key_at(place.path):
                await self._programs.end([each for each in there if each is not process])
                return process
        await self._programs.end(there)  # also an earlier forwarder's whose workload is another one now
        return await self._programs.start(place.path, wireguard.room, alias)

    async def _is_as_wanted(self, former: Process, wireguard: Wireguard) -> bool:
        """Whether the process of an earlier forwarder serves this very wire; one for another wire is useless."""
        try:
            return await self.kernel.run(former.settings) == wireguard.settings
        except MeshError:
            return False

    def _look_around(self, spaces: Namespaces) -> None:
        """Find what earlier processes left, before anything else is done."""
        self._tagged.clear(spaces.own)
        self._ledger.look(spaces)
        self._programs.find(spaces, self._ledger.mark)

    def _former_wireguard(self, spaces: Namespaces, alias: str) -> WireguardSettings | None:
        if (process := self._programs.former(alias)) is not None:
            with contextlib.suppress(MeshError):
                return process.settings()
        return self._maker.former_wireguard(spaces, alias)

    # --- obstacles and leftovers

    async def _end_superseded(self, live: LiveWire) -> None:
        superseded, live.superseded = live.superseded, []
        await self._programs.end([other.device.process for other in superseded if other.device.process is not None])
        for other in superseded:
            if other.when_superseded is not None:
                other.when_superseded()

    def _owned(self, spaces: Namespaces) -> list[Owned]:
        idle = (Owned(self._ledger.id_in(each), (), is_live=False, is_used=False) for each in self._idle())
        return [*self._ledger.look(spaces), *idle]

    def _idle(self) -> list[str]:
        """Those for which an earlier process had only begun to make a WireGuard device."""
        return [alias for alias in self._programs.all_former() if not self._ledger.former(alias)]

    async def _remove_former(self, aliases: Sequence[str]) -> None:
        links = await self.kernel.in_node(lambda spaces: self._maker.take_former(spaces, aliases))
        await self._removal.remove_former(links)
        await self._programs.end_former(aliases)

    # --- waiting for wires

    async def _until_settled(self, live: LiveWire) -> None:
        """Wait for a wire that takes longer to come up than others, without delaying them. Raises `Conflict`."""
        end = time.monotonic() + _SETTLING_TIMEOUT
        while not live.is_settled:
            if time.monotonic() >= end:
                name, where = live.ends[0].place.name, live.ends[0].namespace.where
                raise Conflict(f"interface {name!r} in {where} does not come up")
            await asyncio.sleep(_SETTLING_PAUSE)
            await self.kernel.run(lambda: settle(live, 0.0))

    async def _take_back(self, making: asyncio.Future[LiveWire], device: Device, connection_id: str) -> None:
        """The thread continues when its caller is cancelled: let it end, and remove what it made."""
        try:
            await making
            await self.remove(connection_id)
        except Exception:
            if device.process is not None:
                await self._programs.end([device.process])

    async def _establish(self, live: LiveWire, connection_id: str, tunnel: Wireguard) -> None:
        """Wait for the peer's handshake: a tunnel that its client received works. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                while not await self._last_handshake(live):  # noqa: ASYNC110 - no event reports it
                    await asyncio.sleep(_HANDSHAKE_PAUSE)
        except BaseException as error:
            await shielded(self.remove(connection_id), name="removal of a wire that was not established")
            if isinstance(error, TimeoutError):
                where = f"node {tunnel.peer} (UDP port {tunnel.peer_port})"
                after = f"after {_HANDSHAKE_TIMEOUT:.0f} s"
                what = f"{where} does not answer WireGuard {after}; is UDP let through?"
                raise Unavailable(what, remedy="let that UDP port through between the nodes") from None
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
