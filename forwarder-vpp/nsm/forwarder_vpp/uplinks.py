"""The node's interfaces that VPP has: the one with the tunnels' address, and those of the device selector file.

The kernel keeps them, too. An access list lets nothing of the tunnels' interface into VPP or out of it but the tunnels
themselves (a *pinhole* for each UDP port), so VPP answers nothing that is meant for the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nsm.chains.core import Conflict, Unavailable
from nsm.chains.forwarding.dataplane import Underlay
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.chains.netlink import Interface, Namespaces, Network, reading
from nsm.chains.netlink.encoding import SETLINK, link_part, request
from nsm.forwarder_kernel.kernel_thread import KernelThread
from nsm.forwarder_kernel.underlay import uplink

from .api import VPP
from .names import UPLINK, Names
from .ports import EVERYTHING, NONE, Fields, make_host

AF_PACKET, NO_INIT = "AF_PACKET", "NONE"
_PINHOLE, _DENY_IN, _DENY_OUT = "nsm-pinhole port", "nsm-vppinit-denyall-ingress", "nsm-vppinit-denyall-egress"
_ADVERTISED, _SOLICITED = (134, 136), (133, 135)
_DISCARD_PORT, _TRIES, _PAUSE = 9, 50, 0.01
_IFF_PROMISC = 0x100
_UP = ["IF_STATUS_API_FLAG_ADMIN_UP"]


@dataclass(frozen=True, slots=True)
class Device:
    """An interface of the node, as the kernel has it."""

    name: str
    index: int
    mac: str
    mtu: int
    addresses: tuple[Interface, ...] = ()
    gateways: tuple[tuple[Network, Address], ...] = ()
    neighbors: Mapping[Address, str] = field(default_factory=dict)


class Uplinks:
    """What VPP has of the node. `init` says how it gets interfaces; `parameters` are those of the init file."""

    def __init__(
        self,
        names: Names,
        address: Address | None,
        devices: Sequence[str] = (),
        *,
        init: str = AF_PACKET,
        parameters: Mapping[str, int] | None = None,
    ) -> None:
        self._names, self.address, self._devices, self._init = names, address, devices, init
        self._parameters = dict(parameters or {})
        self._indexes: dict[str, int] = {}
        self._found: dict[str, Device] = {}
        self.tunnels: Underlay | None = None
        """The interface that has the tunnels' address."""
        self.index = NONE
        """Its number in VPP."""
        self._acls: tuple[list[int], list[int]] = [], []
        self._open: set[int] = set()
        self._near: set[Address] = set()
        self._turn = asyncio.Lock()
        self._held: dict[int, socket.socket] = {}

    async def start(self, vpp: VPP, kernel: KernelThread) -> None:
        """Give a VPP that was started the interfaces; in one that has them already they are found."""
        self._indexes, self._near, self._open = {}, set(), set()
        there = {each.tag: each.sw_if_index for each in await vpp.dump("sw_interface_dump")}
        if self.address is not None:
            await self._start_tunnels(vpp, kernel, there)
        for name in self._devices:
            if name not in self._indexes:
                device = await kernel.in_node(partial(_device, name=name))
                self._indexes[name] = await self._bind(vpp, device, there)

    def close(self) -> None:
        """Release the ports that are held."""
        for each in self._held.values():
            each.close()
        self._held.clear()

    def underlay(self, peer: Address | None) -> Underlay:
        """The interface under tunnels to `peer`. Raises `Conflict` if there can be none."""
        if self.tunnels is None or self.address is None:
            raise Conflict("VPP has no interface with the tunnels' address; NSM_TUNNEL_IP and NSM_VPP_INIT set that")
        if peer is not None and peer.version != self.address.version:
            raise Conflict(f"the peer {peer} and our tunnel address {self.address} must be both IPv4 or both IPv6")
        if peer == self.address:
            raise Conflict(f"the peer has our own tunnel address {peer}; every node needs one of its own")
        return self.tunnels

    def uplink(self, name: str) -> tuple[int, Underlay]:
        """An interface for VLANs, by its name: in VPP, and what it is. Raises `Conflict`."""
        if name not in self._indexes:
            raise Conflict(f"VPP has no uplink {name}; NSM_DEVICE_SELECTOR_FILE has to name interfaces of the node")
        return self._indexes[name], Underlay(name, self._found[name].mtu)

    # --- the tunnels' interface

    async def _start_tunnels(self, vpp: VPP, kernel: KernelThread, there: Mapping[str, int]) -> None:
        assert self.address is not None
        if self._init == NO_INIT:
            self.index, self.tunnels = await self._find(vpp, self.address)
        else:
            device = await kernel.in_node(lambda spaces: _holder(spaces, self.address))
            is_there = self._tag(device) in there
            self.index = self._indexes[device.name] = await self._bind(vpp, device, there)
            self.tunnels = Underlay(device.name, device.mtu, self.address)
            if not is_there:
                await self._configure(vpp, device)
        for each in await vpp.dump("acl_interface_list_dump", sw_if_index=self.index):
            if each.sw_if_index == self.index:
                self._acls = list(each.acls[: each.n_input]), list(each.acls[each.n_input :])
        tags = {each.acl_index: each.tag for each in await vpp.dump("acl_dump", acl_index=NONE)}
        own = [tags.get(each, "") for each in self._acls[0]]
        self._open = {int(tag.rpartition(" ")[2]) for tag in own if tag.startswith(_PINHOLE)}

    async def _find(self, vpp: VPP, address: Address) -> tuple[int, Underlay]:
        for each in await vpp.dump("sw_interface_dump"):
            found = await vpp.dump("ip_address_dump", sw_if_index=each.sw_if_index, is_ipv6=address.version == 6)
            if any(one.prefix.ip == address for one in found):
                return each.sw_if_index, Underlay(each.interface_name, each.mtu[0] or each.link_mtu, address)
        raise Conflict(f"the tunnel address {address} is on no interface of VPP; NSM_TUNNEL_IP has to be one of VPP's")

    def _tag(self, device: Device) -> str:
        return self._names.tag(UPLINK, (device.index, device.mac, device.mtu, device.addresses), device.name).text

    async def _bind(self, vpp: VPP, device: Device, there: Mapping[str, int]) -> int:
        self._found[device.name] = device
        if (known := there.get(self._tag(device))) is not None:
            return known
        index = await make_host(vpp, device.name, device.mac, has_offload=True, **self._parameters)
        await vpp.call("sw_interface_set_mtu", sw_if_index=index, mtu=[device.mtu, 0, 0, 0])
        await vpp.call("sw_interface_set_flags", sw_if_index=index, flags=_UP)
        if not device.addresses:
            await vpp.call("sw_interface_tag_add_del", is_add=True, sw_if_index=index, tag=self._tag(device))
        return index

    async def _configure(self, vpp: VPP, device: Device) -> None:
        """First the access lists: VPP must not answer for the kernel. The tag comes last: then all is done."""
        inward, outward = await _deny(vpp, _DENY_IN, _ADVERTISED), await _deny(vpp, _DENY_OUT, _SOLICITED)
        lists: Fields = {"n_input": 1, "acls": [inward, outward]}
        await vpp.call("acl_interface_set_acl_list", sw_if_index=self.index, **lists)
        for address in device.addresses:
            await vpp.call("sw_interface_add_del_address", sw_if_index=self.index, is_add=True, prefix=address)
            if address.version == 6:
                quiet: Fields = {"suppress": 1, "is_no": False}
                await vpp.call("sw_interface_ip6nd_ra_config", sw_if_index=self.index, **quiet)
        for prefix, via in device.gateways:
            path = path_to(self.index, via.version, via)
            await vpp.call("ip_route_add_del_v2", is_add=True, route={"prefix": prefix, "paths": [path]})
        for neighbor, mac in device.neighbors.items():
            await self._add_neighbor(vpp, neighbor, mac)
        await vpp.call("sw_interface_tag_add_del", is_add=True, sw_if_index=self.index, tag=self._tag(device))

    async def _add_neighbor(self, vpp: VPP, address: Address, mac: str) -> None:
        """VPP asks again by itself when the entry is old."""
        neighbor = {"sw_if_index": self.index, "mac_address": mac, "ip_address": address}
        await vpp.call("ip_neighbor_add_del", is_add=True, neighbor=neighbor)

    async def let_in(self, vpp: VPP, kernel: KernelThread, peer: Address, *ports: int) -> None:
        """Prepare a tunnel: UDP of its ports may pass, and VPP knows the way to its peer."""
        async with self._turn:
            for port in ports:
                if port not in self._open:
                    await self._open_port(vpp, kernel, port)
                    self._open.add(port)
        await self._reach(vpp, kernel, peer)

    async def _reach(self, vpp: VPP, kernel: KernelThread, peer: Address) -> None:
        """Tell VPP a peer's hardware address, or its gateway's: the first packet of a handshake is not lost then."""
        device = self._found.get(self.tunnels.name) if self.tunnels is not None else None
        if device is None or peer in self._near:
            return
        hop = _next_hop(device, peer)
        for _ in range(_TRIES):
            if mac := await kernel.in_node(partial(_ask, device=device, hop=hop, peer=peer)):
                await self._add_neighbor(vpp, hop, mac)
                self._near.add(peer)
                return
            await asyncio.sleep(_PAUSE)
        log.info("a peer's hardware address is not known; VPP asks for it", peer=str(peer), next_hop=str(hop))

    # --- pinholes

    async def _open_port(self, vpp: VPP, kernel: KernelThread, port: int) -> None:
        if self._init != NO_INIT and port not in self._held:
            await kernel.run(partial(self._hold, port))
        own = f"{self.address}/{self.address.max_prefixlen}" if self.address is not None else ""
        anybody = EVERYTHING[self.address is not None and self.address.version == 6]
        to_port = {
            "dstport_or_icmpcode_first": port,
            "dstport_or_icmpcode_last": port,
            "srcport_or_icmptype_last": 0xFFFF,
        }
        from_port = {
            "srcport_or_icmptype_first": port,
            "srcport_or_icmptype_last": port,
            "dstport_or_icmpcode_last": 0xFFFF,
        }
        udp = {"is_permit": "ACL_ACTION_API_PERMIT", "proto": "IP_API_PROTO_UDP"}
        inward = [udp | to_port | {"src_prefix": anybody, "dst_prefix": own}]
        outward = [udp | each | {"src_prefix": own, "dst_prefix": anybody} for each in (to_port, from_port)]
        for lists, rules in zip(self._acls, (inward, outward), strict=True):
            if lists:  # else nothing is denied in this direction
                made = await vpp.call("acl_add_replace", acl_index=NONE, tag=f"{_PINHOLE} {port}", r=rules)
                lists.insert(0, made.acl_index)
        if any(self._acls):
            both = [*self._acls[0], *self._acls[1]]
            lists_of: Fields = {"n_input": len(self._acls[0]), "acls": both}
            await vpp.call("acl_interface_set_acl_list", sw_if_index=self.index, **lists_of)

    def _hold(self, port: int) -> None:
        """Keep the kernel from refusing what is for VPP (ICMP), and others from using the port."""
        holder = socket.socket(_FAMILIES[self.address.version if self.address is not None else 4], socket.SOCK_DGRAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            holder.bind((str(self.address), port))
            self._held[port] = holder
        except OSError as error:
            holder.close()
            log.info("a UDP port of VPP's is used by the kernel too", port=port, error=error.strerror or str(error))


def path_to(index: int, version: int, via: Any) -> Fields:
    """A path of VPP's to a next hop on an interface."""
    proto = "FIB_API_PATH_NH_PROTO_IP4" if version == 4 else "FIB_API_PATH_NH_PROTO_IP6"
    return {"sw_if_index": index, "weight": 1, "proto": proto, "nh": {"address": via}}


async def _deny(vpp: VPP, tag: str, permitted: Sequence[int]) -> int:
    """An access list that lets nothing pass but some neighbor discovery."""
    permits = [
        {
            "is_permit": "ACL_ACTION_API_PERMIT",
            "src_prefix": EVERYTHING[1],
            "dst_prefix": EVERYTHING[1],
            "proto": "IP_API_PROTO_ICMP6",
            "srcport_or_icmptype_first": kind,
            "srcport_or_icmptype_last": kind,
            "dstport_or_icmpcode_last": 0xFFFF,
        }
        for kind in permitted
    ]
    ports: Fields = {"srcport_or_icmptype_last": 0xFFFF, "dstport_or_icmpcode_last": 0xFFFF}
    denies = [ports | {"src_prefix": each, "dst_prefix": each} for each in EVERYTHING]
    return int((await vpp.call("acl_add_replace", acl_index=NONE, tag=tag, r=[*permits, *denies])).acl_index)


def _device(spaces: Namespaces, name: str) -> Device:
    """An uplink for VLANs: it receives frames for workloads, whose hardware addresses are not its own."""
    link = uplink(spaces.own.socket, name)
    receive_all = request(SETLINK, 0, link_part(link.index, _IFF_PROMISC), f"let {name} receive frames for workloads")
    spaces.own.socket.apply([receive_all])
    return Device(link.name, link.index, link.mac, link.mtu)


def _holder(spaces: Namespaces, address: Address | None) -> Device:
    """The link that has the tunnels' address, with all that VPP has to know. Raises `Conflict`."""
    sock = spaces.own.socket
    index = sock.index_of(address) if address is not None else None
    link = sock.link(index=index) if index is not None else None
    if index is None or link is None:
        raise Conflict(f"the tunnel address {address} is on no interface of this node; NSM_TUNNEL_IP has to be its own")
    if not link.is_up:
        raise Unavailable(f"the underlay {link.name} ({address}) is down")
    routes = reading.all_routes(sock, index)
    gateways = tuple((each.prefix, each.via) for each in routes if each.via is not None and each.table == _MAIN)
    neighbors = {at: mac for at, mac in reading.neighbors(sock, index).items() if mac}
    addresses = tuple(reading.addresses(sock, index))
    return Device(link.name, index, link.mac, link.mtu, addresses, gateways, neighbors)


_MAIN, _FAMILIES = 254, {4: socket.AF_INET, 6: socket.AF_INET6}


def _ask(spaces: Namespaces, device: Device, hop: Address, peer: Address) -> str:
    """The hardware address of a next hop; while the kernel does not know it, it is made to ask."""
    if mac := reading.neighbors(spaces.own.socket, device.index).get(hop, ""):
        return mac
    with socket.socket(_FAMILIES[peer.version], socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.setblocking(False)
        probe.sendto(b"", (str(peer), _DISCARD_PORT))
    return ""


def _next_hop(device: Device, peer: Address) -> Address:
    if any(peer in each.network for each in device.addresses):
        return peer
    fitting = [(prefix.prefixlen, via) for prefix, via in device.gateways if peer in prefix]
    return max(fitting)[1] if fitting else peer
