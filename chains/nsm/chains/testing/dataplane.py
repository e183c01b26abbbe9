"""A dataplane without packets: it keeps wires in memory, and refuses whatever `Dataplane` rules out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nsm.chains.core import Conflict, Exhausted, Unsupported
from nsm.chains.forwarding.dataplane import NOBODY, Client, LiveWire, Underlay, VniTaken
from nsm.chains.forwarding.sides import KernelInterface, Side, Vxlan, Wireguard
from nsm.chains.forwarding.wires import Wire
from nsm.chains.model.addresses import Address
from nsm.chains.model.traffic import Traffic
from nsm.chains.model.wireguard import WireguardSettings

NO_TRAFFIC = Traffic(0, 0, 0, 0, 0)


@dataclass(slots=True)
class FakeWire(LiveWire):
    """A wire in memory."""

    client: Client = NOBODY
    maker: object = None
    """The dataplane that has it; None: a process that ended."""
    is_held: bool = True
    """Whether namespaces are kept open for it."""
    is_used: bool = True
    """Whether its workloads live: a test may change that."""
    counts: list[Traffic] = field(default_factory=lambda: [NO_TRAFFIC, NO_TRAFFIC])
    """The traffic of the client's and the endpoint's side: a test may change it."""


@dataclass(slots=True, eq=False)
class FakeBegun:
    """A WireGuard that was begun in advance."""

    room: int
    side: KernelInterface
    connection_id: str
    is_dropped: bool = False
    is_claimed: bool = False

    async def drop(self) -> None:
        """Take it back, unless it was claimed."""
        self.is_dropped = not self.is_claimed


class FakeDataplane:
    """Joins any two sides that are in `kinds`, or all; see `Dataplane` for the verbs.

    What is wrong with a call is a RuntimeError: a test of elements fails then. `errors` are raised by the next calls of
    `create` (None: that one succeeds). `successor` is a new process's.
    """

    def __init__(
        self, *, kinds: Collection[str] | None = None, mtu: int = 1500, there: dict[str, FakeWire] | None = None
    ) -> None:
        self.wires: dict[str, FakeWire] = {} if there is None else there
        """All that exist, by the ids of their connections; those of an earlier process have no `maker`."""
        self.calls: list[tuple[str, str]] = []
        """Each verb that changed something, and the connection's id: for example ``("create", "c")``."""
        self.errors: list[BaseException | None] = []
        self.begun: list[FakeBegun] = []
        self.peers: list[Address | None] = []
        """Towards whom the underlay was asked for."""
        self.parameters: Mapping[str, str] = {}
        """What the client's mechanism gets with the next wires."""
        self.no_wireguard: Unsupported | None = None
        """Why there is no WireGuard here."""
        self.taken_ports: set[int] = set()
        """UDP ports of other programs."""
        self.is_closed = False
        self._kinds, self._mtu = kinds, mtu

    def successor(self) -> FakeDataplane:
        """That of a process that was started after this one was killed: it has the same wires, as former ones."""
        for wire in self.wires.values():
            wire.maker, wire.is_held, wire.when_superseded = None, False, None
        return FakeDataplane(kinds=self._kinds, mtu=self._mtu, there=self.wires)

    async def create(
        self, wire: Wire, connection_id: str, begun: FakeBegun | None = None, client: Client = NOBODY
    ) -> FakeWire:
        """Make a wire, or adopt an earlier process's."""
        self._check_open()
        if (error := self.errors.pop(0) if self.errors else None) is not None:
            raise error
        self._check_sides(wire)
        there = self.wires.get(connection_id)
        if there is not None and there.maker is not None:
            raise RuntimeError(f"connection {connection_id} has a wire already")
        superseded = self._make_way(wire, connection_id, client)
        self.calls.append(("create", connection_id))
        if begun is not None:
            begun.is_claimed = True
        live = FakeWire(wire, client, self, connection_id=connection_id, parameters=self.parameters)
        self.wires[connection_id] = live
        for other in superseded:
            if other.when_superseded is not None:
                other.when_superseded()
        return live

    async def resume(self, live: FakeWire, wire: Wire) -> bool:
        """Whether a wire exists between these sides; interfaces may have moved to other paths of their namespaces."""
        self._check_open()
        if not self._has(live) or list(map(_without_path, live.wire.sides)) != list(map(_without_path, wire.sides)):
            return False
        live.is_held, live.wire = True, live.wire.moved(*wire.sides)
        return True

    async def change(self, live: FakeWire, wire: Wire) -> None:
        """Set a wire."""
        self._check_live(live)
        if live.wire.sides != wire.sides:
            raise RuntimeError(f"a change must not replace {live.wire.sides} by {wire.sides}")
        self.calls.append(("change", live.connection_id))
        live.wire = wire

    async def let_go(self, live: FakeWire) -> None:
        """Hold no namespaces for a wire."""
        live.is_held = False

    async def remove(self, connection_id: str) -> None:
        """Remove a wire, if there is one."""
        self._check_open()
        if self.wires.pop(connection_id, None) is not None:
            self.calls.append(("remove", connection_id))

    async def owned(self) -> Sequence[FakeOwned]:
        """All wires."""
        return [FakeOwned(each.connection_id, each.maker is self, each.is_used) for each in self.wires.values()]

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """Remove wires of an earlier process."""
        for each in connection_ids:
            if each in self.wires and self.wires[each].maker is None:
                await self.remove(each)

    async def traffic(self, wires: Sequence[FakeWire]) -> Sequence[tuple[Traffic | None, Traffic | None]]:
        """The counts of the sides on this node."""
        return [(self._traffic(live, 0), self._traffic(live, 1)) for live in wires]

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        self.is_closed = True

    # --- tunnels

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """An interface of the MTU."""
        self.peers.append(peer)
        return Underlay("eth0", self._mtu, own)

    async def uplink(self, name: str) -> Underlay:
        """The same, under any name."""
        return Underlay(name, self._mtu)

    def former_vni(self, connection_id: str) -> int | None:
        """The number of an earlier process's wire."""
        return next((side.vni for side in self._former(connection_id) if isinstance(side, Vxlan)), None)

    async def check_wireguard(self) -> None:
        """Raise `no_wireguard`, if that is set."""
        if self.no_wireguard is not None:
            raise self.no_wireguard

    def begin_wireguard(self, room: int, side: KernelInterface, connection_id: str) -> FakeBegun:
        """Note it in `begun`."""
        self.begun.append(FakeBegun(room, side, connection_id))
        return self.begun[-1]

    async def former_wireguard(self, connection_id: str) -> WireguardSettings | None:
        """The settings of an earlier process's wire."""
        return next((side.settings for side in self._former(connection_id) if isinstance(side, Wireguard)), None)

    async def free_udp_port(self, wanted: int, taken: Collection[int]) -> int:
        """The wanted port, or the next free one."""
        used = self.taken_ports | set(taken)
        for port in range(wanted, 65536):
            if port not in used:
                return port
        raise Exhausted("found no free UDP port")

    # --- what it refuses

    def _check_open(self) -> None:
        if self.is_closed:
            raise RuntimeError("the dataplane is used after it was closed")

    def _has(self, live: FakeWire) -> bool:
        return self.wires.get(live.connection_id) is live

    def _check_live(self, live: FakeWire) -> None:
        self._check_open()
        if not self._has(live) or not live.is_held:
            raise RuntimeError(f"the wire of connection {live.connection_id} was not resumed, or is gone")

    def _check_sides(self, wire: Wire) -> None:
        kinds = [side.kind for side in wire.sides]
        if self._kinds is not None and not set(kinds) <= set(self._kinds):
            raise Unsupported(f"a wire from {kinds[0]} to {kinds[1]} cannot be made here")

    def _make_way(self, wire: Wire, connection_id: str, client: Client) -> list[FakeWire]:
        """Remove what is in the way, and return it. Raises `Conflict` if it is another client's."""
        names = {(each.path, each.name) for each in wire.interfaces}
        numbers = {(side.port, side.vni) for side in wire.sides if isinstance(side, Vxlan)}
        superseded: list[FakeWire] = []
        for other in [each for each in self.wires.values() if each.connection_id != connection_id]:
            if numbers & {(side.port, side.vni) for side in other.wire.sides if isinstance(side, Vxlan)}:
                raise VniTaken(f"VNI {numbers.pop()[1]} is taken")
            taken = names & {(each.path, each.name) for each in other.wire.interfaces}
            if taken and other.maker is not None and not other.client.is_same(client):
                raise Conflict(f"interface name {taken.pop()[1]!r} is taken")
            if taken:
                del self.wires[other.connection_id]
                superseded.append(other)
        return superseded

    def _former(self, connection_id: str) -> Sequence[Side]:
        there = self.wires.get(connection_id)
        return there.wire.sides if there is not None and there.maker is None else ()

    def _traffic(self, live: FakeWire, number: int) -> Traffic | None:
        return live.counts[number] if self._has(live) and live.wire.sides[number].is_local else None


@dataclass(frozen=True, slots=True)
class FakeOwned:
    """One of the wires of a `FakeDataplane`."""

    connection_id: str
    is_live: bool
    is_used: bool


def _without_path(side: Side) -> Side:
    return KernelInterface("", side.name, side.token, side.is_bare) if isinstance(side, KernelInterface) else side
