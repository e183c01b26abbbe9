"""How two interfaces of VPP become a wire: a cross-connect of frames or of packets, or a bridge with an uplink."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Sequence
from ipaddress import ip_address

from nsm.chains.forwarding.sides import Breakout

from .api import VPP
from .ports import Fields, Port
from .uplinks import path_to

NEXT_HOPS = ip_address("192.0.0.8"), ip_address("100::1")
"""Stand for the other side where it has a hardware address: the dummy address (RFC 7600), one to discard (RFC 6666)."""
_UP, _STATIC = ["IF_STATUS_API_FLAG_ADMIN_UP"], ["IP_API_NEIGHBOR_FLAG_STATIC"]
_DEFAULT_MTU = 9000
_POP_1 = 3


class BreakoutPort(Port):
    """The uplink of a VLAN, or its sub-interface of the tag, which all wires of that tag share."""

    is_ethernet = True

    def __init__(self, side: Breakout, parent: int) -> None:
        super().__init__()
        self.side, self.parent = side, parent

    @property
    def domain(self) -> int:
        """The number of the bridge domain."""
        return 1 + zlib.crc32(self.side.interface.encode()) % 0xFFFFFE


def configure(vpp: VPP, port: Port, mtu: int, mac: str, *, is_l2: bool) -> list[Awaitable[object]]:
    """The calls that set an interface up; one of packets sends everything to the hardware address `mac`, if any."""
    index = port.index
    calls: list[Awaitable[object]] = [
        vpp.call("sw_interface_set_mtu", sw_if_index=index, mtu=[mtu or _DEFAULT_MTU, 0, 0, 0]),
        vpp.call("sw_interface_set_flags", sw_if_index=index, flags=_UP),
    ]
    if port.is_ethernet and not is_l2:
        for hop in NEXT_HOPS:
            neighbor = {"sw_if_index": index, "flags": _STATIC, "mac_address": mac, "ip_address": hop}
            calls.append(vpp.call("ip_neighbor_add_del", is_add=True, neighbor=neighbor))
    return calls


def cross_connect(vpp: VPP, ports: Sequence[Port], *, is_l2: bool) -> list[Awaitable[object]]:
    """The calls that let everything that comes from one side leave at the other."""
    calls: list[Awaitable[object]] = []
    for one, other in (ports, reversed(ports)):
        if is_l2:
            both: Fields = {"rx_sw_if_index": one.index, "tx_sw_if_index": other.index}
            calls.append(vpp.call("sw_interface_set_l2_xconnect", enable=True, **both))
            continue
        for version, hop in zip((4, 6), NEXT_HOPS, strict=True):
            path = path_to(other.index or 0, version, hop)
            wanted = {"sw_if_index": one.index, "is_ip6": version == 6, "paths": [path]}
            calls.append(vpp.call("l3xc_update", l3xc=wanted))
    return calls


class Bridges:
    """The bridge domains of uplinks: each joins one tag of an uplink and the wires that go there."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def join(self, vpp: VPP, uplink: BreakoutPort, port: Port) -> None:
        """Put a wire into the domain of its uplink, which is made for the first one."""
        async with self._turn:
            features: Fields = dict.fromkeys(("flood", "uu_flood", "forward", "learn"), True)
            there = {"BD_ALREADY_EXISTS"}
            await vpp.call("bridge_domain_add_del_v2", is_add=True, bd_id=uplink.domain, fine=there, **features)
            tagged = await self._lower(vpp, uplink)
            for index in (tagged, port.index):
                await vpp.call("sw_interface_set_l2_bridge", rx_sw_if_index=index, bd_id=uplink.domain)

    async def leave(self, vpp: VPP, uplink: BreakoutPort) -> None:
        """After a wire was removed: the last one takes domain and sub-interface with it."""
        async with self._turn:
            lower = await self._find(vpp, uplink)
            for domain in await vpp.dump("bridge_domain_dump", bd_id=uplink.domain):
                members = {each.sw_if_index for each in domain.sw_if_details}
                if members - {lower}:
                    return
                for index in members:
                    await vpp.call("sw_interface_set_l2_bridge", rx_sw_if_index=index, bd_id=domain.bd_id, enable=False)
                await vpp.call("bridge_domain_add_del_v2", is_add=False, bd_id=domain.bd_id)
            if lower not in (None, uplink.parent):
                await vpp.call("delete_subif", sw_if_index=lower)

    async def _lower(self, vpp: VPP, uplink: BreakoutPort) -> int:
        if (known := await self._find(vpp, uplink)) is not None:
            return known
        made = await vpp.call("create_vlan_subif", sw_if_index=uplink.parent, vlan_id=uplink.side.vlan)
        index = int(made.sw_if_index)
        await vpp.call("sw_interface_set_flags", sw_if_index=index, flags=_UP)
        await vpp.call("l2_interface_vlan_tag_rewrite", sw_if_index=index, vtr_op=_POP_1)
        return index

    async def _find(self, vpp: VPP, uplink: BreakoutPort) -> int | None:
        if not uplink.side.vlan:
            return uplink.parent
        for each in await vpp.dump("sw_interface_dump"):
            if each.sup_sw_if_index == uplink.parent and each.sub_id == uplink.side.vlan:
                return int(each.sw_if_index)
        return None
