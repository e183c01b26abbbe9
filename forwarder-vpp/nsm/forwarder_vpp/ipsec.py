"""IPSEC between nodes: VPP's IKEv2 makes the keys, and an interface of VPP for each wire carries its packets."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from typing import ClassVar

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import (
    DST_IP,
    DST_PORT,
    DST_PUBLIC_KEY,
    IPSEC,
    IPSEC_DEFAULT_PORT,
    MTU,
    REMOTE,
    SRC_IP,
    SRC_PORT,
    SRC_PUBLIC_KEY,
)
from nsm.apis.payloads import IP
from nsm.chains.core import Call, Element, Handler, Key, Store
from nsm.chains.elements.filter_mechanisms import is_on_this_node
from nsm.chains.forwarding.dataplane import HasUnderlay
from nsm.chains.forwarding.offer import offer
from nsm.chains.forwarding.sides import CLIENT_SIDE, ENDPOINT_SIDE, Side
from nsm.chains.forwarding.supported import Supported
from nsm.chains.forwarding.tunnel_peers import AskedByForwarders
from nsm.chains.forwarding.tunnels import lower_mtu, peer_in, port_in
from nsm.chains.model.addresses import Address, Interface
from nsm.chains.policy import Trust

from .api import VPP
from .certificates import Certificate, NodeKey, peer_certificate
from .ports import Fields, Port, later, until

OVERHEAD = {4: 81, 6: 101}
"""Bytes that a wire takes from the underlay's MTU, by IP version: upstream's numbers."""
_RSA_SIGNATURE, _FQDN = 1, 2
_AES_CBC, _SHA1_96, _GROUP_14, _KEY_BITS = 12, 2, 14, 256
_LIFETIME, _JITTER, _HANDOVER = 3600, 10, 5
_PATIENCE = 8.0
_ALL = ip_network("0.0.0.0/0")[0], ip_network("0.0.0.0/0")[-1]


@dataclass(frozen=True, slots=True)
class Ipsec(Side):
    """IPSEC: an encrypted tunnel for packets to another node."""

    name: str
    """The profile's name: ``client-`` or ``server-`` and the connection's id."""
    own: Certificate = field(repr=False)
    peer: Certificate = field(repr=False)
    remote: Address
    is_client: bool
    """Whether this side begins."""
    kind: ClassVar[str] = IPSEC


class IpsecPort(Port):
    """VPP's interface of a wire, and the IKEv2 profile that makes its keys."""

    def __init__(
        self, side: Ipsec, key: NodeKey, uplink: int, local: Sequence[Interface], remote: Sequence[Interface]
    ) -> None:
        super().__init__()
        self._side, self._key, self._uplink, self._selectors = side, key, uplink, ((True, local), (False, remote))
        self._is_new = False

    @property
    def made_of(self) -> tuple[object, ...]:
        """Both certificates, and the peer."""
        return "ipsec", self._side.own.text, self._side.peer.text, self._side.remote, self._side.name

    async def make(self, vpp: VPP) -> int:
        """Make the interface, then the profile."""
        made = await vpp.call(
            "ipsec_itf_create",
            itf={"mode": "TUNNEL_API_MODE_P2P"},
            late=lambda late: later(vpp.call("ipsec_itf_delete", sw_if_index=late.sw_if_index)),
        )
        try:
            await self._make_profile(vpp, made.sw_if_index)
        except BaseException:
            await vpp.call("ipsec_itf_delete", sw_if_index=made.sw_if_index)
            raise
        self._is_new = True
        return int(made.sw_if_index)

    async def _make_profile(self, vpp: VPP, index: int) -> None:
        name: Fields = {"name": self._side.name}
        await vpp.call("ikev2_set_local_key", key_file=str(self._key.path))
        await vpp.call("ikev2_profile_add_del", is_add=True, **name)
        try:
            await self._authenticate(vpp)
            for is_local, addresses in self._selectors:
                first, last = (addresses[-1].ip, addresses[-1].ip) if addresses else _ALL
                selector: Fields = {"is_local": is_local, "start_addr": first, "end_addr": last, "end_port": 0xFFFF}
                await vpp.call("ikev2_profile_set_ts", ts=selector, **name)
            await vpp.call("ikev2_profile_set_udp_encap", **name)
            await vpp.call("ikev2_set_tunnel_interface", sw_if_index=index, **name)
            algorithm: Fields = {"crypto_alg": _AES_CBC, "crypto_key_size": _KEY_BITS, "integ_alg": _SHA1_96}
            await vpp.call("ikev2_set_ike_transforms", tr=algorithm | {"dh_group": _GROUP_14}, **name)
            await vpp.call("ikev2_set_esp_transforms", tr=algorithm, **name)
            times: Fields = {"lifetime": _LIFETIME, "lifetime_jitter": _JITTER, "handover": _HANDOVER}
            await vpp.call("ikev2_set_sa_lifetime", **times, **name)
            if self._side.is_client:
                responder = {"sw_if_index": self._uplink, "addr": self._side.remote}
                await vpp.call("ikev2_set_responder", responder=responder, **name)
                await vpp.call("ikev2_initiate_sa_init", **name)
        except BaseException:
            await vpp.call("ikev2_profile_add_del", is_add=False, **name)
            raise

    async def _authenticate(self, vpp: VPP) -> None:
        """VPP reads the peer's certificate from a file, once."""
        name: Fields = {"name": self._side.name}
        descriptor, path = tempfile.mkstemp(dir=self._key.path.parent, suffix=".pem")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._side.peer.pem)
            await vpp.call("ikev2_profile_set_auth", auth_method=_RSA_SIGNATURE, data=path.encode(), **name)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        for is_local, certificate in ((True, self._side.own), (False, self._side.peer)):
            identity: Fields = {"is_local": is_local, "id_type": _FQDN, "data": certificate.identity}
            await vpp.call("ikev2_profile_set_id", **identity, **name)

    async def settle(self, vpp: VPP) -> None:
        """The side that begins waits for the keys."""
        if self._side.is_client and self._is_new:
            where = f"node {self._side.remote} does not answer IKEv2; are UDP 500 and {IPSEC_DEFAULT_PORT} let through?"
            await until(lambda: self._has_keys(vpp), _PATIENCE, where)

    async def _has_keys(self, vpp: VPP) -> bool:
        return bool(await vpp.dump("ipsec_tunnel_protect_dump", sw_if_index=self.index))


class IpsecEnd:
    """A node's end of IPSEC wires."""

    def __init__(self, address: Address, dataplane: HasUnderlay, key: NodeKey) -> None:
        self.address, self._dataplane, self._node_key = address, dataplane, key
        self._own: dict[str, Key[Certificate]] = {
            each: Key(f"IPSEC certificate of the {each}") for each in (_CLIENT, _SERVER)
        }

    async def mtu(self, peer: Address | None = None) -> int:
        """The MTU of a wire to `peer`. Raises `Conflict` or `Unavailable` if there can be none."""
        underlay = await self._dataplane.underlay(self.address, peer)
        return underlay.room(OVERHEAD[self.address.version])

    async def certificate(self, role: str, store: Store) -> Certificate:
        """Our certificate for a connection, made once."""
        known = store.get(self._own[role])
        return known or store.put(self._own[role], await self._node_key.certificate(role, store.connection_id))

    def side(self, role: str, store: Store, own: Certificate, peer: Certificate, remote: Address) -> Ipsec:
        """The tunnel of a connection."""
        name = f"{role}-{store.connection_id}"[:63]
        return Ipsec(name, own, peer, remote, is_client=role == _CLIENT)


_CLIENT, _SERVER = "client", "server"


class IpsecServer(Element):
    """For a forwarder's server chain: name this end of the wire, and its certificate."""

    def __init__(self, end: IpsecEnd) -> None:
        self._end = end

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanism before the endpoint is requested, which receives the MTU."""
        mechanism = call.connection.mechanism
        assert mechanism is not None
        client, peer = peer_in(mechanism, SRC_IP), peer_certificate(mechanism, SRC_PUBLIC_KEY)
        port_in(mechanism, SRC_PORT)
        mtu = await self._end.mtu(client)
        own = await self._end.certificate(_SERVER, call.live)
        answer = {DST_IP: str(self._end.address), DST_PORT: str(IPSEC_DEFAULT_PORT), DST_PUBLIC_KEY: own.text}
        mechanism.parameters.update(answer)
        lower_mtu(call.connection, mechanism, mtu)
        call.live.put(CLIENT_SIDE, self._end.side(_SERVER, call.live, own, peer, client))
        return await rest.request(call)


class OfferIpsec(Element):
    """For a forwarder's client chain: offer a wire that carries packets to another node, encrypted by IPsec."""

    def __init__(self, end: IpsecEnd) -> None:
        self._end = end

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the preference; take the other end, and its certificate, from the answer."""
        if call.connection.payload != IP or is_on_this_node(call):
            return await rest.request(call)
        own = await self._end.certificate(_CLIENT, call.live)
        parameters = {
            SRC_IP: str(self._end.address),
            SRC_PORT: str(IPSEC_DEFAULT_PORT),
            SRC_PUBLIC_KEY: own.text,
            MTU: str(await self._end.mtu()),
        }
        mechanism = Mechanism(cls=REMOTE, type=IPSEC, parameters=parameters)
        return await offer(call, rest, mechanism, partial(self._note, call.live, own))

    async def _note(self, store: Store, own: Certificate, connection: Connection, mechanism: Mechanism) -> None:
        server, peer = peer_in(mechanism, DST_IP), peer_certificate(mechanism, DST_PUBLIC_KEY)
        lower_mtu(connection, mechanism, await self._end.mtu(server))
        store.put(ENDPOINT_SIDE, self._end.side(_CLIENT, store, own, peer, server))


def ipsec(address: Address, dataplane: HasUnderlay, key: NodeKey, trust: Trust) -> Supported:
    """IPSEC for a forwarder whose node has `address`."""
    end = IpsecEnd(address, dataplane, key)
    return Supported(kind=IPSEC, served=[AskedByForwarders(trust), IpsecServer(end)], offered=[OfferIpsec(end)])
