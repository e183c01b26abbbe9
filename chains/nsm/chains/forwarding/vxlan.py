"""VXLAN between nodes: the numbers of wires, and the parameters that both ends exchange."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import (
    DST_IP,
    DST_ORIGINAL_IP,
    DST_PORT,
    MTU,
    REMOTE,
    SRC_IP,
    SRC_ORIGINAL_IP,
    SRC_PORT,
    VNI,
    VXLAN,
    VXLAN_DEFAULT_PORT,
)
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import Call, Element, Exhausted, Handler, InvalidRequest, Key, Store
from nsm.chains.elements.filter_mechanisms import is_on_this_node
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.chains.policy import Trust

from .dataplane import CarriesVxlan, VniTaken
from .offer import offer
from .sides import CLIENT_SIDE, ENDPOINT_SIDE, Side, Vxlan
from .supported import Supported
from .tunnel_peers import AskedByForwarders
from .tunnels import VXLAN_OVERHEAD, address_in, lower_mtu, number_in, peer_in, port_in

_MAX_VNI = (1 << 24) - 1
_PICKS, _TRIES = 1000, 4
_WISH: Key[int] = Key("wanted VNI")


def _random_vni() -> int:
    return secrets.randbelow(_MAX_VNI + 1)


class Vnis:
    """The VXLAN network identifiers of a node's wires: the kernel takes each only once for a UDP port.

    A number that a server chooses is even if the client's address is not above its own, else odd, as
    upstream's forwarders have it, so that two nodes that number wires towards each other at the same time never
    choose the same.
    """

    def __init__(self, pick: Callable[[], int] | None = None) -> None:
        self._pick = pick or _random_vni
        self._taken: dict[int, int] = {}

    def __len__(self) -> int:
        """The number of VNIs in use, which a leak test counts."""
        return len(self._taken)

    def choose(self, parity: int) -> int:
        """A free number, even or odd. Raises `Exhausted`."""
        for _ in range(_PICKS):
            vni = self._pick() & ~1 | parity
            if vni and vni not in self._taken:
                return vni
        raise Exhausted("found no free VNI")

    def take(self, vni: int) -> None:
        """Count one more use of a number."""
        self._taken[vni] = self._taken.get(vni, 0) + 1

    def give(self, vni: int) -> None:
        """Count one use less."""
        self._taken[vni] -= 1
        if not self._taken[vni]:
            del self._taken[vni]


class VxlanEnd:
    """A node's end of VXLAN wires: its address, its one UDP port and its numbers."""

    def __init__(
        self, address: Address, dataplane: CarriesVxlan, *, port: int = VXLAN_DEFAULT_PORT, vnis: Vnis | None = None
    ) -> None:
        self.address, self.port = address, port or VXLAN_DEFAULT_PORT
        self.vnis = Vnis() if vnis is None else vnis
        self._dataplane = dataplane
        self._used: Key[int] = Key("VNI")

    async def mtu(self, peer: Address | None = None) -> int:
        """The MTU of a wire to `peer`. Raises `Conflict` or `Unavailable` if there can be none."""
        underlay = await self._dataplane.underlay(self.address, peer)
        return underlay.room(VXLAN_OVERHEAD[self.address.version])

    def former_vni(self, store: Store) -> int | None:
        """The number of the connection's wire, if an earlier process of this forwarder made it."""
        return self._dataplane.former_vni(store.connection_id)

    def use(self, store: Store, side: Key[Side], tunnel: Vxlan) -> None:
        """Set the tunnel as a connection's `side`; its number is in use until that ends or has another one."""
        before = store.get(self._used)
        if before is None:
            store.on_end(partial(self._end, store))
        if before != tunnel.vni:
            self._end(store)
            self.vnis.take(store.put(self._used, tunnel.vni))
        store.put(side, tunnel)

    def _end(self, store: Store) -> None:
        if (vni := store.pop(self._used)) is not None:
            self.vnis.give(vni)


class VxlanServer(Element):
    """For a forwarder's server chain: number the wire, and name this end of it.

    A number that the request already has, on a refresh or chosen by the client's node, is kept. So is the number of
    a wire that existed before this forwarder was started.
    """

    def __init__(self, end: VxlanEnd) -> None:
        self._end = end
        self._given: Key[int] = Key("given VNI")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanism before the endpoint is requested, which receives the MTU."""
        mechanism = call.connection.mechanism
        assert mechanism is not None
        client = peer_in(mechanism, SRC_IP)
        port = port_in(mechanism, SRC_PORT) or self._end.port
        mtu = await self._end.mtu(client)
        vni = self._vni(call, mechanism)
        own = {DST_IP: str(self._end.address), DST_PORT: str(self._end.port), VNI: str(vni)}
        mechanism.parameters.update(own)
        lower_mtu(call.connection, mechanism, mtu)
        self._end.use(call.live, CLIENT_SIDE, Vxlan(vni, self._end.address, self._end.port, client, port))
        return await rest.request(call)

    def _vni(self, call: Call, mechanism: Mechanism) -> int:
        wished = call.live.pop(_WISH)
        known = number_in(mechanism, VNI, _MAX_VNI, least=1) or call.live.get(self._given)
        vni = wished or known or self._end.former_vni(call.live)
        if vni is None:
            vni = self._end.vnis.choose(_parity(mechanism, self._end.address))
        return call.live.put(self._given, vni)


class OfferVxlan(Element):
    """For a forwarder's client chain: offer a wire that carries frames to another node."""

    def __init__(self, end: VxlanEnd) -> None:
        self._end = end

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference; take the other end from the answer."""
        if call.connection.payload != ETHERNET or is_on_this_node(call):
            return await rest.request(call)
        own = {SRC_IP: str(self._end.address), SRC_PORT: str(self._end.port), MTU: str(await self._end.mtu())}
        if (wished := call.live.pop(_WISH)) is not None:
            own[VNI] = str(wished)
        mechanism = Mechanism(cls=REMOTE, type=VXLAN, parameters=own)
        return await offer(call, rest, mechanism, partial(self._note, call.live))

    async def _note(self, store: Store, connection: Connection, mechanism: Mechanism) -> None:
        server = peer_in(mechanism, DST_IP)
        port = port_in(mechanism, DST_PORT) or VXLAN_DEFAULT_PORT
        lower_mtu(connection, mechanism, await self._end.mtu(server))
        if not (vni := number_in(mechanism, VNI, _MAX_VNI, least=1)):
            raise InvalidRequest(f"node {server} answered without a VNI")
        self._end.use(store, ENDPOINT_SIDE, Vxlan(vni, self._end.address, self._end.port, server, port))


class TryAnotherVni(Element):
    """If the dataplane already has the wire's VNI, close and request again with another one.

    A server sees only its own wires: two of them may give the same number to wires from a third node, whose kernel
    accepts it once for a UDP port, in all namespaces. Stands before the elements of the mechanisms and those that
    request from the endpoint.
    """

    def __init__(self, end: VxlanEnd) -> None:
        self._end = end

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Undo a failed attempt, choose a free number, and try again."""
        asked = codec.clone(call.request)
        for _ in range(_TRIES):
            try:
                async with call.undo.attempt():
                    return await rest.request(call)
            except VniTaken as error:
                log.info("requesting another VNI", connection=call.live.connection_id, because=str(error))
                self._wish(call.live)
                call.request = codec.clone(asked)
        return await rest.request(call)

    def _wish(self, store: Store) -> None:
        sides = store.pop(CLIENT_SIDE), store.pop(ENDPOINT_SIDE)
        parity = next((side.vni & 1 for side in sides if isinstance(side, Vxlan)), 0)
        store.put(_WISH, self._end.vnis.choose(parity))


def _parity(mechanism: Mechanism, server: Address) -> int:
    """0 if the client's address is not above the server's, as bytes; addresses before a translation count."""
    client = address_in(mechanism, SRC_ORIGINAL_IP if mechanism.parameters.get(SRC_ORIGINAL_IP) else SRC_IP)
    if mechanism.parameters.get(DST_ORIGINAL_IP):
        server = address_in(mechanism, DST_ORIGINAL_IP)
    return int(client.packed > server.packed)


def vxlan(address: Address, dataplane: CarriesVxlan, trust: Trust, *, port: int = 0) -> Supported:
    """VXLAN for a forwarder whose node has `address`; `port` 0 is the usual UDP port."""
    end = VxlanEnd(address, dataplane, port=port)
    return Supported(
        kind=VXLAN,
        served=[AskedByForwarders(trust), VxlanServer(end)],
        offered=[OfferVxlan(end)],
        again=[TryAnotherVni(end)],
    )
