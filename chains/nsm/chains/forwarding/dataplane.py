"""What a forwarder needs from whatever forwards its packets: the kernel, VPP, virtual functions.

A `Dataplane` makes, changes and removes wires. It knows nothing of requests, the choice of mechanisms, peers or
policies: the elements of this package do that, and `nsm.chains.composed.forwarder` is their chain. Its verbs are
coroutines of one event loop; they may be called concurrently for different connections, and never for the same one:
calls for a connection are in turn (`remove` may also follow a cancelled call). Nothing may block the loop.

What is called when, for one connection:

| the forwarder | calls |
| --- | --- |
| takes part in a tunnel, before and after the answer | `underlay`, `uplink`; `former_vni`, `former_wireguard` |
| has the endpoint's first answer | `create` |
| has the answer to a refresh | `resume`; if that is False `remove` and `create`, else `change` if the wire differs |
| hears nothing of the connection for 0.1 s | `let_go`; the next request comes with `resume` |
| closes the connection, or its first request fails after `create` | `remove` |
| was started | `owned`, later `remove_former`: see `Reconcile` |
| stops | `aclose`; wires stay, and packets pass |

Who undoes what: a verb that raises, or is cancelled, has undone its own part when it returns, except that a failed
`change` may leave the wire between both states (the next `change` or `remove` continues from there). Whatever `create`
has made is undone by `remove`, which the elements call in every other case.

Errors are those of `nsm.chains.core`, in one line that names what was wrong and what to do: `Unsupported` for sides
that cannot be joined here, `Conflict` for a name, number or address that is taken, `InvalidRequest` for an invalid
value of the client or endpoint, `Refused` for one that is not allowed, `Unavailable` for what may work later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nsm.chains.core import Conflict, Key
from nsm.chains.model.addresses import Address
from nsm.chains.model.bounds import MIN_MTU
from nsm.chains.model.traffic import Traffic
from nsm.chains.model.wireguard import WireguardSettings

from .sides import KernelInterface
from .wires import Wire


@dataclass(frozen=True, slots=True)
class Client:
    """The owner of a wire's connection (see `Call.owner`), and its name for it. Empty: unknown."""

    owner: tuple[str, ...] = ()
    name: str = ""

    def is_same(self, other: Client) -> bool:
        """Whether both are one client's one connection, whatever its id is at the components between."""
        return bool(self.owner and self.name) and self == other


NOBODY = Client()


@dataclass(slots=True)
class LiveWire:
    """A wire that exists. Dataplanes derive their own class from it, and get their own objects back."""

    wire: Wire
    """As it is now: set by `create`, `change` and `resume`."""
    connection_id: str = field(default="", kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)
    """How long making it took, without waiting for others."""
    parameters: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What the client's mechanism gets in addition, such as `pciAddress`; the element sets them at each request."""
    when_superseded: Callable[[], object] | None = field(default=None, kw_only=True)
    """Set by the element. Call it, in the loop, if another client's connection took the place of this one."""
    fault: str = field(default="", kw_only=True)
    """Why it passes no packets while the dataplane repairs it by itself; empty: it does pass packets."""
    when_repaired: Callable[[bool], object] | None = field(default=None, kw_only=True)
    """Set by the element: called when `fault` changes, with whether the wire is as it should be if there is none."""

    def begin_repair(self, fault: str) -> None:
        """Report, in the loop, that packets do not pass for a moment: clients wait some seconds, and do not heal."""
        if fault != self.fault:
            self.fault = fault
            if self.when_repaired is not None:
                self.when_repaired(False)

    def end_repair(self, *, is_whole: bool = True) -> None:
        """Report that a repair that was begun has ended; if it was in vain, the client is asked for a request."""
        if self.fault:
            self.fault = ""
            if self.when_repaired is not None:
                self.when_repaired(is_whole)

    def metrics(self) -> Mapping[str, str]:
        """Values for this component's path segment, such as `client_rx_bytes`; read at each request."""
        return {}


L = TypeVar("L", bound=LiveWire)

LIVE: Key[LiveWire] = Key("wire")
"""The wire of a connection, while there is one: set by `MakeWire`, read by the elements that watch it."""


class Owned(Protocol):
    """A wire of this forwarder, made by any process of it, or what is left of one."""

    @property
    def connection_id(self) -> str:
        """The connection's id at this forwarder, or whatever stands for it in `remove_former`."""

    @property
    def is_live(self) -> bool:
        """Whether a connection of this process has it."""

    @property
    def is_used(self) -> bool:
        """Whether all of its workloads live, as far as can be seen: then it passes packets, and is kept for long."""


class Begun(Protocol):
    """A part of a wire that is being made in advance, while others are asked."""

    async def drop(self) -> None:
        """Take it back, unless `create` has claimed it; a second call does nothing."""


BEGUN: Key[Begun] = Key("wire begun in advance")
"""What was begun of a connection's wire: `MakeWire` passes it to `create`."""


class Dataplane(Protocol[L]):
    """The wires of one forwarder."""

    async def create(self, wire: Wire, connection_id: str, begun: Any | None = None, client: Client = NOBODY) -> L:
        """Make the wire of a connection that has none; returns when packets can pass.

        The ends are in the namespaces and under the names that `wire.sides` say, with all settings. What an earlier
        process of this forwarder made for the same connection is adopted without losing a packet, or else removed.
        `begun` is the answer of an earlier `begin_wireguard`. `client` tells whether a name or an address that is taken
        is the same client's: that wire is replaced, and its `when_superseded` called. Raises `Unsupported` if it cannot
        join the two sides, `VniTaken`, and others as described above.
        """

    async def resume(self, live: L, wire: Wire) -> bool:
        """Whether a wire still exists, and `change` can turn it into `wire`; called with every refresh.

        Takes up again what `let_go` released; the paths in `wire` may be new ones of the same namespaces, and
        `live.wire` has the sides of `wire` then. False if it is gone, or its sides differ in more than that: the caller
        removes it. A refresh without changes has to be cheap.
        """

    async def change(self, live: L, wire: Wire) -> None:
        """Set a wire to `wire`, between the same sides: what both have is not touched, and no packet is lost."""

    async def let_go(self, live: L) -> None:
        """Stop keeping namespaces of workloads alive (by open descriptors or sockets); the wire passes packets.

        It can still be removed, counted and repaired.
        """

    async def remove(self, connection_id: str) -> None:
        """Remove the wire of a connection, made by any process of this forwarder; fine if there is none."""

    async def owned(self) -> Sequence[Owned]:
        """All wires of this forwarder, read from what forwards the packets, and not from memory."""

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """Remove wires that an earlier process made; one that a connection has adopted meanwhile stays."""

    async def traffic(self, wires: Sequence[L]) -> Sequence[tuple[Traffic | None, Traffic | None]]:
        """The traffic of each wire's client's side and endpoint's side; None for one that has no counters here."""

    async def aclose(self) -> None:
        """Stop, after what was begun; the wires stay. A second call does nothing."""


# --- what tunnels need beyond that; a dataplane without the mechanism does not have the verbs


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface that carries tunnels, in its current state."""

    name: str
    mtu: int
    address: Address | None = field(default=None, compare=False)

    def room(self, overhead: int) -> int:
        """The MTU of a wire over it, with `overhead` bytes. Raises `Conflict` if that is too small for any packet."""
        mtu = self.mtu - overhead
        if mtu < MIN_MTU:
            raise Conflict(
                f"the underlay {self.name} ({self.address}) has MTU {self.mtu}; a wire of MTU {MIN_MTU} needs "
                f"{MIN_MTU + overhead} there"
            )
        return mtu


class VniTaken(Conflict):
    """The dataplane has another device of the same VNI on the same UDP port; another number may be free."""


class HasUnderlay(Protocol):
    """For all tunnels between nodes."""

    async def underlay(self, own: Address, peer: Address | None = None) -> Underlay:
        """The interface that carries tunnels from our address `own` to `peer`, or to any address.

        Called with every refresh: answer from memory where nothing has changed. Raises `Conflict` if the address is on
        no interface, or that is down; `Unavailable` if no route leads to `peer`.
        """


class CarriesVxlan(HasUnderlay, Protocol):
    """For VXLAN, whose elements choose the numbers and set `Vxlan`."""

    def former_vni(self, connection_id: str) -> int | None:
        """The number of what an earlier process made for a connection, if it is still there; from memory."""


class CarriesWireguard(HasUnderlay, Protocol):
    """For WIREGUARD, whose elements make the keys and set `Wireguard`."""

    async def check_wireguard(self) -> None:
        """Raise `Unsupported` if no WireGuard can be made here, with the remedy; cheap, called with every refresh."""

    def begin_wireguard(self, room: int, side: KernelInterface, connection_id: str) -> Begun:
        """Start in advance what takes long; `side` is the other side of the wire, `room` the underlay's MTU."""

    async def former_wireguard(self, connection_id: str) -> WireguardSettings | None:
        """Key and port of what an earlier process made for a connection, if it is still there."""

    async def free_udp_port(self, wanted: int, taken: Collection[int]) -> int:
        """The UDP port for one more wire: `wanted` if it can be used, else any that is free and not in `taken`.

        A dataplane whose wires share a port always answers with that one. Raises `Exhausted`.
        """


class HasUplinks(Protocol):
    """For VLAN, whose elements set `Breakout`."""

    async def uplink(self, name: str) -> Underlay:
        """An interface of the node, by its name. Raises `Conflict` if it is not there, or down."""
