"""WireGuard between nodes: the keys and ports of a wire, and the parameters that both ends exchange."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from functools import lru_cache, partial

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import (
    DST_IP,
    DST_PORT,
    DST_PUBLIC_KEY,
    MTU,
    REMOTE,
    SRC_IP,
    SRC_PORT,
    SRC_PUBLIC_KEY,
    WIREGUARD,
    WIREGUARD_DEFAULT_PORT,
)
from nsm.apis.payloads import IP
from nsm.chains.core import Call, Element, Handler, InvalidRequest, Key, Store, Unsupported
from nsm.chains.elements.filter_mechanisms import is_on_this_node
from nsm.chains.model.addresses import Address
from nsm.chains.policy import Trust

from .dataplane import BEGUN, CarriesWireguard
from .offer import offer
from .sides import CLIENT_SIDE, ENDPOINT_SIDE, KernelInterface, Wireguard
from .supported import Supported
from .tunnel_peers import AskedByForwarders
from .tunnels import WIREGUARD_OVERHEAD, lower_mtu, peer_in, port_in

_KEY_SIZE, _KEY_TEXT = 32, 44


@dataclass(frozen=True, slots=True)
class Keys:
    """A pair of keys, and the UDP port of its owner."""

    private: bytes = field(repr=False)
    public: str
    """Base64, as sent to peers."""
    port: int


class WireguardEnd:
    """A node's end of WireGuard wires: its address, and the ports that it has promised."""

    def __init__(self, address: Address, dataplane: CarriesWireguard) -> None:
        self.address, self._dataplane = address, dataplane
        self.ports: set[int] = set()
        self._choosing = asyncio.Lock()

    async def mtu(self, peer: Address | None = None) -> int:
        """The MTU of a wire to `peer`. Raises `Conflict` or `Unavailable` if there can be none."""
        underlay = await self._dataplane.underlay(self.address, peer)
        return underlay.room(WIREGUARD_OVERHEAD[self.address.version])

    async def check(self) -> None:
        """Raise `Unsupported` if such wires cannot be made here."""
        await self._dataplane.check_wireguard()

    def begin(self, call: Call, mtu: int) -> None:
        """Begin a new wire, whose other end is known, since the client named it, while others are requested."""
        near = call.live.get(CLIENT_SIDE)
        if call.live.get(ENDPOINT_SIDE) is None and isinstance(near, KernelInterface):
            begun = self._dataplane.begin_wireguard(mtu, near, call.live.connection_id)
            call.live.put(BEGUN, begun)
            call.undo.add(begun.drop)

    async def keys(self, store: Store, slot: Key[Keys]) -> Keys:
        """The connection's own keys and port, in `slot`: made once, they last as long as it does.

        Those of a wire of an earlier process are used again: it continues unchanged.
        """
        if (known := store.get(slot)) is not None:
            return known
        if (former := await self._dataplane.former_wireguard(store.connection_id)) is not None:
            self.ports.add(former.port)
            store.on_end(partial(self.ports.discard, former.port))
            return store.put(slot, _keys(X25519PrivateKey.from_private_bytes(former.private_key), former.port))
        async with self._choosing:
            port = await self._dataplane.free_udp_port(WIREGUARD_DEFAULT_PORT, self.ports)
            self.ports.add(port)
        store.on_end(partial(self.ports.discard, port))
        return store.put(slot, _keys(X25519PrivateKey.generate(), port))


def _keys(key: X25519PrivateKey, port: int) -> Keys:
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return Keys(key.private_bytes_raw(), public, port)


class WireguardServer(Element):
    """For a forwarder's server chain: name this end of the wire, and its public key."""

    def __init__(self, end: WireguardEnd) -> None:
        self._end = end
        self._keys: Key[Keys] = Key("WireGuard keys of the server side")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanism before the endpoint is requested, which receives the MTU."""
        mechanism = call.connection.mechanism
        assert mechanism is not None
        await self._end.check()
        client = peer_in(mechanism, SRC_IP)
        peer_key = _key_in(mechanism, SRC_PUBLIC_KEY)
        port = port_in(mechanism, SRC_PORT) or WIREGUARD_DEFAULT_PORT
        mtu = await self._end.mtu(client)
        keys = await self._end.keys(call.live, self._keys)
        own = {DST_IP: str(self._end.address), DST_PORT: str(keys.port), DST_PUBLIC_KEY: keys.public}
        mechanism.parameters.update(own)
        lower_mtu(call.connection, mechanism, mtu)
        tunnel = Wireguard(keys.private, keys.port, peer_key, client, port, mtu, is_client=False)
        call.live.put(CLIENT_SIDE, tunnel)
        return await rest.request(call)


class OfferWireguard(Element):
    """For a forwarder's client chain: offer a wire that carries packets to another node, encrypted."""

    def __init__(self, end: WireguardEnd) -> None:
        self._end = end
        self._keys: Key[Keys] = Key("WireGuard keys of the client side")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference; take the other end, and its key, from the answer."""
        if call.connection.payload != IP or is_on_this_node(call):
            return await rest.request(call)
        try:
            await self._end.check()
        except Unsupported as error:
            return await self._without(call, rest, error)
        keys = await self._end.keys(call.live, self._keys)
        mtu = await self._end.mtu()
        own = {SRC_IP: str(self._end.address), SRC_PORT: str(keys.port), SRC_PUBLIC_KEY: keys.public, MTU: str(mtu)}
        self._end.begin(call, mtu)
        mechanism = Mechanism(cls=REMOTE, type=WIREGUARD, parameters=own)
        connection = await offer(call, rest, mechanism, partial(self._note, call.live, keys))
        is_chosen = connection.mechanism is not None and connection.mechanism.type == WIREGUARD
        if not is_chosen and (begun := call.live.pop(BEGUN)) is not None:
            await begun.drop()
        return connection

    async def _note(self, store: Store, keys: Keys, connection: Connection, mechanism: Mechanism) -> None:
        server = peer_in(mechanism, DST_IP)
        peer_key = _key_in(mechanism, DST_PUBLIC_KEY, not_ours=keys.public)
        port = port_in(mechanism, DST_PORT) or WIREGUARD_DEFAULT_PORT
        mtu = await self._end.mtu(server)
        lower_mtu(connection, mechanism, mtu)
        store.put(ENDPOINT_SIDE, Wireguard(keys.private, keys.port, peer_key, server, port, mtu, is_client=True))

    async def _without(self, call: Call, rest: Handler, reason: Unsupported) -> Connection:
        """Another mechanism may work; if not, the error includes the reason."""
        try:
            return await rest.request(call)
        except Unsupported as error:
            told = f"{error.detail}; WireGuard was not offered: {reason.detail}"
            raise Unsupported(told, element=error.element, hops=error.hops) from error


def _key_in(mechanism: Mechanism, parameter: str, *, not_ours: str = "") -> bytes:
    """The public key in a parameter. Raises `InvalidRequest` for an invalid key, or one without a possible secret."""
    text = mechanism.parameters.get(parameter, "")
    try:
        key = base64.b64decode(text, validate=True) if len(text) == _KEY_TEXT else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_SIZE:
        raise InvalidRequest(
            f"{parameter} of the {mechanism.type} mechanism is not a key (32 bytes in base64): {text[:_KEY_TEXT]!r}"
        )
    if text == not_ours or not _has_secret(key):
        raise InvalidRequest(f"{parameter} of the {mechanism.type} mechanism is a key that no other node can have")
    return key


@lru_cache(maxsize=1024)  # each refresh brings the same
def _has_secret(key: bytes) -> bool:
    """Whether a secret shared with the owner of `key` would be one: with few points, such as zero, it is known."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


def wireguard(address: Address, dataplane: CarriesWireguard, trust: Trust) -> Supported:
    """WireGuard for a forwarder whose node has `address`."""
    end = WireguardEnd(address, dataplane)
    return Supported(
        kind=WIREGUARD, served=[AskedByForwarders(trust), WireguardServer(end)], offered=[OfferWireguard(end)]
    )
