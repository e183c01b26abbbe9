"""Makes, changes and removes wires through VPP.

The kernel's part, interfaces in the namespaces of workloads and their settings, is that of the kernel forwarder; this
adds VPP's part to each wire: an interface at both sides, and what joins them. VPP says itself which of its interfaces
are whose, by tags, so a restarted forwarder finds them; a VPP that was restarted is given all of them again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nsm.chains.core import Conflict, FileKey, InvalidRequest, MeshError, Tasks, Unsupported, both_to_the_end, shielded
from nsm.chains.core.descriptors import facts_of
from nsm.chains.forwarding.dataplane import NOBODY, Client, Underlay
from nsm.chains.forwarding.sides import Breakout, KernelInterface, Memif, Side, Vxlan, Wireguard
from nsm.chains.forwarding.wires import Wire
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.chains.model.traffic import Traffic
from nsm.chains.model.wireguard import WireguardSettings
from nsm.chains.netlink import Namespaces
from nsm.forwarder_kernel.dataplane import CLAIM_WITHIN
from nsm.forwarder_kernel.dataplane import Dataplane as KernelDataplane
from nsm.forwarder_kernel.live_wire import LiveWire
from nsm.forwarder_kernel.owned import Owned

from .api import VPP
from .api.stats import Counters
from .certificates import NodeKey
from .devices import ThroughVPP, mac_towards
from .direct import Relays
from .ipsec import Ipsec, IpsecPort
from .joins import BreakoutPort, Bridges, configure, cross_connect
from .names import CLIENT, ENDPOINT, Names, Tag, host_name, id_in_tag
from .ports import (
    NONE,
    HostPort,
    MemifPort,
    Port,
    Tagged,
    TapPort,
    VxlanPort,
    WireguardPort,
    check_socket,
    erase,
    in_order,
)
from .session import Session
from .uplinks import Uplinks

IPSEC_PORTS = (500, 4500)
_DYNAMIC = ("host-nsm", "tap", "tun", "memif", "vxlan_tunnel", "wg", "ipsec")
_AT_ONCE, _TRIES = 16, 2
"""Wires that are made again at the same time, and attempts at each: a busy VPP answers a call too late."""


class Dataplane(KernelDataplane):
    """The wires of one forwarder through the VPP of `session`. `owner` is written into all that it makes.

    `vhost` is the device by which the kernel shares memory with taps; without it wires end in veth pairs.
    """

    def __init__(
        self,
        owner: str,
        session: Session,
        uplinks: Uplinks,
        key: NodeKey | None = None,
        *,
        in_node: bool = False,
        claim_within: float = CLAIM_WITHIN,
        vhost: Path = Path("/dev/vhost-net"),
    ) -> None:
        super().__init__(owner, in_node=in_node, claim_within=claim_within)
        self._session, self._uplinks, self._key = session, uplinks, key
        self._names, self._bridges = Names(owner), Bridges()
        self._relays = Relays(self._names)
        self._has_vhost = vhost.exists()
        self._wires: dict[str, LiveWire] = {}
        self._former: dict[str, dict[str, tuple[Tag, int]]] = {}
        self._vnis: dict[int, int] = {}
        self._unerased: list[Tagged] = []
        self._tasks = Tasks("wires through VPP")
        session.when_started(self._started)
        session.when_ended(self._ended)

    # --- tunnels

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """VPP's interface that has the tunnels' address. Raises `Conflict`."""
        return self._uplinks.underlay(peer)

    async def uplink(self, name: str) -> Underlay:
        """An interface that VPP has for VLANs. Raises `Conflict`."""
        return self._uplinks.uplink(name)[1]

    async def free_udp_port(self, wanted: int, taken: Collection[int]) -> int:
        """All wires share one port."""
        return wanted

    async def check_wireguard(self) -> None:
        """Raise `Unsupported` if VPP has no WireGuard."""
        vpp = self._session.now
        if vpp is not None and not vpp.has("wireguard_interface_create"):
            raise Unsupported(f"VPP {vpp.version} has no WireGuard: its plugin 'wireguard' is not loaded")

    def begin_wireguard(self, room: int, side: KernelInterface, connection_id: str) -> Any:
        """Nothing takes long."""
        return _NothingBegun()

    def former_vni(self, connection_id: str) -> int | None:
        """That of a tunnel that an earlier process made."""
        former = self._former.get(id_in_tag(connection_id), {})
        return next((self._vnis[index] for _, index in former.values() if index in self._vnis), None)

    async def former_wireguard(self, connection_id: str) -> WireguardSettings | None:
        """Key and port of a tunnel that an earlier process made."""
        if not (former := self._former.get(id_in_tag(connection_id))):
            return None
        indexes, vpp = {index for _, index in former.values()}, await self._session.vpp()
        found = await vpp.dump("wireguard_interface_dump", show_private_key=True, sw_if_index=NONE)
        settings = [each.interface for each in found if each.interface.sw_if_index in indexes]
        return next((WireguardSettings(each.private_key, each.port, b"") for each in settings), None)

    # --- wires

    async def create(
        self, wire: Wire, connection_id: str, begun: Any | None = None, client: Client = NOBODY
    ) -> LiveWire:
        """Make a wire, or adopt what an earlier process made; see `nsm.chains.forwarding.dataplane`."""
        begin = time.perf_counter()
        await self._session.vpp()
        if wire.interfaces:
            try:
                live = await super().create(wire, connection_id, None, client)
            except BaseException:
                if self._has_vhost:
                    await shielded(self._erase_all(connection_id), name="removal of taps")
                raise
        else:
            alias = self._ledger.alias_of(connection_id)
            live = LiveWire(wire, (), alias, await self.device(wire, alias, None), client=client)
            live.connection_id = connection_id
        self._wires[connection_id] = live
        try:
            await shielded(self._connect(await self._session.vpp(), live), name="make a wire in VPP")
        except BaseException:
            await shielded(self.remove(connection_id), name="removal of a wire that failed")
            raise
        live.seconds = time.perf_counter() - begin
        return live

    async def resume(self, live: LiveWire, wire: Wire) -> bool:
        """Whether the wire exists, in VPP too: one that could not be made again there does not."""
        through = _through(live)
        if not await self._is_connected(live, through):
            return False
        stable = wire.moved(*map(_unmoved, live.wire.sides, wire.sides, through.ports))
        if not (await super().resume(live, stable) if live.ends else live.wire.sides == stable.sides):
            return False
        live.wire = live.wire.moved(*wire.sides)
        return True

    async def change(self, live: LiveWire, wire: Wire) -> None:
        """Set a wire: VPP knows none of its addresses, so only the MTU concerns it."""
        mtu = live.wire.mtu
        if live.ends:
            await super().change(live, wire)
        live.wire = wire
        if mtu != wire.mtu and (vpp := self._session.now) is not None:
            await in_order(self._configure(vpp, live))

    async def remake(self, live: LiveWire) -> bool:
        """Make links again that others deleted, and VPP's part of them."""
        vpp, through = self._session.now, _through(live)
        if vpp is None or any(isinstance(port, TapPort) for port in through.ports):
            return False  # VPP makes taps, and makes them again when it is back: see `_started`
        made = await super().remake(live)
        if made:
            await self._connect(vpp, live)
        return made

    async def remove(self, connection_id: str) -> None:
        """Remove a wire, VPP's part and the kernel's at the same time; if VPP is gone, its part is gone too."""
        live = self._wires.pop(connection_id, None)
        if live is None or live.ends:
            await both_to_the_end(self._remove_in_vpp(live, connection_id), super().remove(connection_id))
        else:
            await self._remove_in_vpp(live, connection_id)

    async def _remove_in_vpp(self, live: LiveWire | None, connection_id: str) -> None:
        if live is not None:
            await self._disconnect(live)
        await self._erase_former([connection_id])

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """Remove wires of an earlier process."""
        await self._erase_former(connection_ids)
        await super().remove_former(connection_ids)

    async def owned(self) -> list[Owned]:
        """The wires of this owner: those of the kernel, and those that only VPP and relays have."""
        found = await super().owned()
        known = {id_in_tag(each.connection_id) for each in found}
        live = {id_in_tag(each) for each in self._wires}
        others = {*self._former, *self._relays.find(), *live} - known
        return [*found, *(Owned(each, (), each in live) for each in sorted(others))]

    async def traffic(self, wires: Sequence[LiveWire]) -> list[tuple[Traffic | None, Traffic | None]]:
        """What VPP counts at both sides of each wire, as its holders see it."""
        counted = [_through(live).counters() for live in wires]
        return [(_by_holder(client), _by_holder(endpoint)) for client, endpoint in counted]

    async def aclose(self) -> None:
        """Stop; the wires stay, and VPP passes packets."""
        await self._tasks.aclose()
        self._uplinks.close()
        self._relays.release()
        for live in self._wires.values():
            _through(live).close()
        if self._key is not None:
            await self._key.aclose()
        await super().aclose()

    # --- what a wire is made of

    async def device(self, wire: Wire, alias: str, begun: Any | None) -> ThroughVPP:
        """VPP's interfaces of a wire, which do not exist yet. Raises `Unsupported`, `InvalidRequest`, `Refused`."""
        ports: list[Port] = []
        try:
            for side in wire.sides:
                ports.append(await self._port(wire, side, alias, len(ports)))
            await self._make_taps(ports, wire, alias)
        except BaseException:
            for port in ports:
                port.close()
            raise
        return ThroughVPP(alias, ports, self._session, arp=_is_l2(wire))

    async def _port(self, wire: Wire, side: Side, alias: str, place: int) -> Port:
        near, far = (wire.client, wire.endpoint) if place == 0 else (wire.endpoint, wire.client)
        is_l2, port = _is_l2(wire), None
        match side:
            case KernelInterface():
                port = self._kernel_port(alias, place, len(wire.interfaces))
            case Memif():
                check_socket(side.socket)
                descriptor, key = await self._open_namespace(side)
                self._check_memif(side, key, alias, descriptor)
                port = MemifPort(side, descriptor, key, is_master=place == 0, is_ethernet=is_l2)
            case Vxlan():
                port = VxlanPort(side)
            case Wireguard() if self._uplinks.address is not None and not is_l2:
                port = WireguardPort(side, self._uplinks.address)
            case Ipsec() if self._key is not None and not is_l2:
                addresses = far.settings.addresses, near.settings.addresses
                port = IpsecPort(side, self._key, self._uplinks.index, *addresses)
            case Breakout() if place == 1:
                port = BreakoutPort(side, self._uplinks.uplink(side.uplink)[0])
        if port is None:
            kinds, payload = [each.kind for each in wire.sides], "frames" if is_l2 else "packets"
            raise Unsupported(f"a wire for {payload} from {kinds[0]} to {kinds[1]} cannot be made by VPP")
        return port

    def _kernel_port(self, alias: str, place: int, ends: int) -> Port:
        number = place if ends == 2 else 0
        host, mac = host_name(alias, number), mac_towards(alias, number, ends)
        if self._has_vhost:
            return TapPort(host, mac, mac_towards(alias, ends - 1 - number, ends))
        return HostPort(host, mac, has_offload=ends == 2)

    async def _open_namespace(self, side: Memif) -> tuple[int, FileKey]:
        """An own descriptor of the namespace that a memif socket is in."""
        if not side.path:
            raise InvalidRequest(f"the memif socket {side.socket} has no inodeURL: in which network namespace is it?")

        def take(spaces: Namespaces) -> tuple[int, FileKey]:
            namespace = spaces.take(side.path)
            try:
                return os.dup(namespace.descriptor), namespace.key
            finally:
                spaces.give(namespace)

        return await self.kernel.in_node(take)

    def _check_memif(self, side: Memif, key: FileKey, alias: str, descriptor: int) -> None:
        """A socket in one namespace is one wire's: an endpoint must not name that of a client."""
        for live in self._wires.values():
            ports = [port for port in _through(live).ports if isinstance(port, MemifPort) and live.alias != alias]
            if any((port.socket, port.key) == (side.socket, key) for port in ports):
                os.close(descriptor)
                raise Conflict(f"the memif socket {side.socket} belongs to connection {live.connection_id}")

    async def _make_taps(self, ports: Sequence[Port], wire: Wire, alias: str) -> None:
        """Taps are there before the kernel's part of the wire, which moves them."""
        if any(isinstance(port, TapPort) for port in ports):
            await in_order(await self._provide(await self._session.vpp(), ports, self._ledger.id_in(alias)))

    # --- VPP's part of a wire

    async def _connect(self, vpp: VPP, live: LiveWire) -> None:
        """Make, or adopt, what a wire has in VPP; returns when packets can pass."""
        through = _through(live)
        async with through.lock:
            if through.is_direct:
                await self._relay(live, through)
                return
            await self._let_in(vpp, live)
            uplink = next((port for port in through.ports if isinstance(port, BreakoutPort)), None)
            ports = [port for port in through.ports if port is not uplink]
            named = await self._provide(vpp, through.ports, live.connection_id)
            joined = cross_connect(vpp, ports, is_l2=_is_l2(live.wire)) if uplink is None else []
            await in_order([*named, *self._configure(vpp, live), *joined])
            if uplink is not None:
                await self._bridges.join(vpp, uplink, ports[0])
            for port in ports:
                await port.settle(vpp)

    async def _provide(self, vpp: VPP, ports: Sequence[Port], connection_id: str) -> list[Awaitable[None]]:
        """The interfaces of both sides: those that are there if they are made of the same, else new ones.

        Returns the calls that give new ones their tags.
        """
        former = self._former.get(id_in_tag(connection_id), {})
        wanted: list[tuple[Port, str]] = []
        obsolete: list[Tagged] = []
        for place, port in zip((CLIENT, ENDPOINT), ports, strict=True):
            if isinstance(port, BreakoutPort):
                continue
            tag = self._names.tag(place, port.made_of, connection_id)
            there = [(port.index, port.tag)] if port.index is not None else []
            if place in former:
                old, index = former.pop(place)
                there.append((index, old.text))
            port.index, port.tag = next((index for index, text in there if text == tag.text), None), tag.text
            obsolete += [each for each in there if each != (port.index, tag.text)]
            wanted.append((port, tag.text))
        async with self._session.making():
            await erase(vpp, obsolete)
            new = [(port, text) for port, text in wanted if port.index is None]
            await in_order([_make(vpp, port) for port, _ in new])
        return [_name(vpp, port, text) for port, text in new]

    def _configure(self, vpp: VPP, live: LiveWire) -> list[Awaitable[object]]:
        wire, number = live.wire, 0
        calls: list[Awaitable[object]] = []
        for port in _through(live).ports:
            mac = ""
            if isinstance(port, HostPort | TapPort):
                mac, number = live.ends[number].mac, number + 1
            if port.index is not None and not isinstance(port, BreakoutPort):
                calls += configure(vpp, port, wire.mtu, mac or "02:00:00:00:00:01", is_l2=_is_l2(wire))
        return calls

    async def _let_in(self, vpp: VPP, live: LiveWire) -> None:
        """Let the UDP packets of tunnels pass, and know the next hop to their peers."""
        for side in live.wire.sides:
            match side:
                case Vxlan():
                    await self._uplinks.let_in(vpp, self.kernel, side.remote, side.port, side.remote_port)
                case Wireguard():
                    await self._uplinks.let_in(vpp, self.kernel, side.peer, side.port)
                case Ipsec():
                    await self._uplinks.let_in(vpp, self.kernel, side.remote, *IPSEC_PORTS)

    async def _relay(self, live: LiveWire, through: ThroughVPP) -> None:
        client, endpoint = [port for port in through.ports if isinstance(port, MemifPort)]
        sockets, opened = (client.socket, endpoint.socket), (client.descriptor, endpoint.descriptor)
        made_of = (client.made_of, endpoint.made_of)
        await self._relays.provide(live.connection_id, made_of, sockets, opened)
        through.close()

    async def _is_connected(self, live: LiveWire, through: ThroughVPP) -> bool:
        if through.is_direct:
            return self._relays.is_running(id_in_tag(live.connection_id))
        if (vpp := self._session.now) is None:
            return True  # it is on its way
        if any(port.index is None for port in through.ports if not isinstance(port, BreakoutPort)):
            return False
        slaves = [port for port in through.ports if isinstance(port, MemifPort) and not port.is_master]
        return all([await port.is_connected(vpp) for port in slaves])

    async def _disconnect(self, live: LiveWire) -> None:
        through = _through(live)
        if through.is_direct:
            await self._relays.remove(id_in_tag(live.connection_id))
        async with through.lock:
            there = [(port.index, port.tag) for port in through.ports if port.index is not None]
            for port in through.ports:
                port.index = None
            through.close()
            await self._erase(there)
        vpp = self._session.now
        for port in through.ports:
            if isinstance(port, BreakoutPort) and vpp is not None:
                await self._bridges.leave(vpp, port)

    async def _erase(self, indexes: Iterable[Tagged]) -> None:
        """Remove interfaces from VPP; those that it does not give away now are tried again with the next ones."""
        wanted, self._unerased = [*self._unerased, *indexes], []
        if (vpp := self._session.now) is None:
            self._unerased = wanted  # it is gone with VPP, or was made in the next one a moment ago
            return
        try:
            async with self._session.making():
                await erase(vpp, wanted)
        except MeshError as error:
            log.warning("VPP keeps interfaces of wires that were removed", error=str(error))
            self._unerased = wanted

    async def _erase_all(self, connection_id: str) -> None:
        """Remove whatever VPP has of a connection."""
        if (vpp := self._session.now) is not None:
            tags = [(each, self._names.read(each.tag)) for each in await vpp.dump("sw_interface_dump")]
            name = id_in_tag(connection_id)
            await self._erase([(each.sw_if_index, each.tag) for each, tag in tags if tag and tag.connection_id == name])

    async def _erase_former(self, connection_ids: Iterable[str]) -> None:
        for name in map(id_in_tag, connection_ids):
            former = self._former.pop(name, {})
            await self._erase([(index, tag.text) for tag, index in former.values()])
            if name not in {id_in_tag(each) for each in self._wires}:
                await self._relays.remove(name)

    async def _end_superseded(self, live: LiveWire) -> None:
        for other in live.superseded:
            if isinstance(other, LiveWire) and self._wires.pop(other.connection_id, None) is not None:
                await self._disconnect(other)
        await super()._end_superseded(live)

    async def _establish(self, live: LiveWire, connection_id: str, tunnel: Wireguard) -> None:
        """VPP's part of the wire is not there yet: its port waits for the peer."""

    # --- VPP that was started, or that this process sees for the first time

    async def _started(self, vpp: VPP) -> None:
        """Find what is there, and make the wires of this process again that are not."""
        await self._uplinks.start(vpp, self.kernel)
        self._former, self._unerased = {}, []
        untagged: list[Tagged] = []
        for each in await vpp.dump("sw_interface_dump"):
            tag = self._names.read(each.tag)
            if tag is not None and tag.side in (CLIENT, ENDPOINT):
                self._former.setdefault(tag.connection_id, {})[tag.side] = tag, each.sw_if_index
            elif not each.tag and self._session.is_own and each.interface_name.startswith(_DYNAMIC):
                untagged.append((each.sw_if_index, ""))  # by a process that was killed before it could say whose
        await erase(vpp, untagged)
        found = await vpp.dump("vxlan_tunnel_v2_dump", sw_if_index=NONE) if vpp.has("vxlan_tunnel_v2_dump") else []
        self._vnis = {each.sw_if_index: each.vni for each in found}
        await self._rebuild(vpp)

    def _ended(self, fault: str) -> None:
        """No packet passes until a wire was made again: clients wait for that."""
        for live in self._wires.values():
            if not _through(live).is_direct:
                live.begin_repair(fault)

    async def _rebuild(self, vpp: VPP) -> None:
        begin, wires, turns = time.perf_counter(), list(self._wires.values()), asyncio.Semaphore(_AT_ONCE)

        async def again(live: LiveWire) -> None:
            async with turns:
                for _ in range(_TRIES):
                    try:
                        await self._make_again(vpp, live)
                        live.end_repair()
                        return
                    except MeshError as error:
                        log.warning("a wire cannot be made again", connection=live.connection_id, error=str(error))
            if vpp.is_open:  # else the next one is being started
                live.end_repair(is_whole=False)

        await asyncio.gather(*map(again, wires))
        if wires:
            log.info("wires made again", wires=len(wires), ms=round(1000 * (time.perf_counter() - begin)))
            for name in set(self._former) - {id_in_tag(each) for each in self._wires}:
                await self._erase_former([name])

    async def _make_again(self, vpp: VPP, live: LiveWire) -> None:
        through = _through(live)
        if through.is_direct or live.connection_id not in self._wires:
            return
        for port in through.ports:
            port.index = None
        if any(isinstance(port, TapPort) for port in through.ports):
            await in_order(await self._provide(vpp, through.ports, live.connection_id))
            await super().remake(live)
        try:
            await self._connect(vpp, live)
        except BaseException:
            for port in through.ports:
                port.index = None
            raise


class _NothingBegun:
    async def drop(self) -> None:
        """Nothing was begun."""


async def _make(vpp: VPP, port: Port) -> None:
    port.index, port.tag = await port.make(vpp), ""  # until it has its tag, which may be refused


async def _name(vpp: VPP, port: Port, tag: str) -> None:
    await vpp.call("sw_interface_tag_add_del", is_add=True, sw_if_index=port.index, tag=tag)
    port.tag = tag


def _through(live: LiveWire) -> ThroughVPP:
    assert isinstance(live.device, ThroughVPP)
    return live.device


def _is_l2(wire: Wire) -> bool:
    """Whether it carries frames: those of a network behind an uplink, too."""
    return wire.arp or isinstance(wire.tunnel, Breakout)


def _unmoved(before: Side, after: Side, port: Port) -> Side:
    """The side before if a memif's namespace was only opened by another path."""
    if not (isinstance(before, Memif) and isinstance(after, Memif) and isinstance(port, MemifPort)):
        return after
    with suppress(OSError):
        if before.socket == after.socket and facts_of(after.path).key == port.key:
            return before
    return after


def _by_holder(counted: Counters | None) -> Traffic | None:
    if counted is None:
        return None
    return Traffic(counted.tx_packets, counted.rx_packets, counted.tx_bytes, counted.rx_bytes, counted.drops)
