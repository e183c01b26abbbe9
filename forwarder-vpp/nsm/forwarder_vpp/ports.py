"""The interfaces that VPP has at the sides of wires: a class for each kind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from nsm.chains.core import FileKey, InvalidRequest, Unavailable
from nsm.chains.forwarding.dataplane import VniTaken
from nsm.chains.forwarding.sides import Memif, Vxlan, Wireguard
from nsm.chains.model.addresses import Address

from .api import VPP, Record, Rejected

Fields = dict[str, Any]
"""Fields of a message."""
NONE = 0xFFFFFFFF
"""No interface, and the default of some numbers."""
_NO_MAC = "00:00:00:00:00:00"
EVERYTHING = ("0.0.0.0/0", "::/0")
_ESTABLISHED = "WIREGUARD_PEER_ESTABLISHED"
_LINK_UP = "IF_STATUS_API_FLAG_LINK_UP"
_RX_FRAMES, _TX_FRAMES = 64, 64
"""Packets that a ring of af_packet takes: it keeps 66 KiB of memory for each, since one may be of 64 KiB (GSO)."""
_KEEPALIVE = 10
_PAUSE = 0.005
_MEMIF_PATIENCE, _HANDSHAKE_PATIENCE = 5.0, 8.0
"""Seconds: a slave tries every two, WireGuard again after five."""


class Port:
    """VPP's interface at one side of a wire; `index` is VPP's number for it, while there is one."""

    is_ethernet = False
    """Whether it carries frames."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.tag = ""

    @property
    def made_of(self) -> tuple[object, ...]:
        """What it is made of: another interface is as good if it is made of the same."""
        raise NotImplementedError

    async def make(self, vpp: VPP) -> int:
        """Make it, and return its index; nothing is left if that fails."""
        raise NotImplementedError

    async def settle(self, vpp: VPP) -> None:
        """Wait until it can pass packets; it is set up. Raises `Unavailable`."""

    def close(self) -> None:
        """Release what is kept open for it."""


class HostPort(Port):
    """The node's end of a veth pair, by af_packet version 2, which delivers at once.

    With `has_offload` segments and checksums are left to the other end (GSO), which has to be such a port, too: VPP
    would pass on what a tunnel's outer header says of them.
    """

    is_ethernet = True

    def __init__(self, host: str, mac: str, *, has_offload: bool) -> None:
        super().__init__()
        self.host, self._mac, self.has_offload = host, mac, has_offload
        self.link = 0
        """The index of the node's end."""

    @property
    def made_of(self) -> tuple[object, ...]:
        """The node's end."""
        return "af_packet", self.host, self.link, self._mac, self.has_offload

    async def make(self, vpp: VPP) -> int:
        """VPP knows it by its name: one of that name that is there was of another link."""
        try:
            return await make_host(vpp, self.host, self._mac, has_offload=self.has_offload)
        except Rejected as error:
            if error.name != "IF_ALREADY_EXISTS":
                raise
            await vpp.call("af_packet_delete", host_if_name=self.host)
            return await make_host(vpp, self.host, self._mac, has_offload=self.has_offload)


async def make_host(vpp: VPP, host: str, mac: str, *, has_offload: bool, **more: Any) -> int:
    """Let VPP use a link of its own network namespace; returns the interface."""
    flags = ["AF_PACKET_API_FLAG_VERSION_2", *(["AF_PACKET_API_FLAG_CKSUM_GSO"] if has_offload else [])]
    rings = {"rx_frames_per_block": _RX_FRAMES, "tx_frames_per_block": _TX_FRAMES, **more}
    made = await vpp.call(
        "af_packet_create_v3",
        mode="AF_PACKET_API_MODE_ETHERNET",
        hw_addr=mac,
        host_if_name=host,
        flags=flags,
        late=lambda _: later(vpp.call("af_packet_delete", host_if_name=host)),
        **rings,
    )
    return int(made.sw_if_index)


class TapPort(Port):
    """A tap, where the kernel has vhost-net. VPP makes it in the node's namespace, from where it is moved."""

    is_ethernet = True

    def __init__(self, host: str, mac: str, host_mac: str) -> None:
        super().__init__()
        self.host, self._mac, self._host_mac = host, mac, host_mac

    @property
    def made_of(self) -> tuple[object, ...]:
        """Its name before it is moved."""
        return "tap", self.host, self._mac, self._host_mac

    async def make(self, vpp: VPP) -> int:
        """It is made before the wire's kernel part."""
        made = await vpp.call(
            "tap_create_v3",
            use_random_mac=False,
            mac_address=self._mac,
            host_if_name_set=True,
            host_if_name=self.host,
            host_mac_addr_set=True,
            host_mac_addr=self._host_mac,
            late=lambda late: later(vpp.call("tap_delete_v2", sw_if_index=late.sw_if_index)),
        )
        await vpp.call(
            "sw_interface_set_rx_mode", sw_if_index=made.sw_if_index, mode="RX_MODE_API_ADAPTIVE", fine={"UNSUPPORTED"}
        )
        return int(made.sw_if_index)


class MemifPort(Port):
    """Shared memory with a workload, by a socket in its network namespace, which `descriptor` has open."""

    def __init__(self, side: Memif, descriptor: int, key: FileKey, *, is_master: bool, is_ethernet: bool) -> None:
        super().__init__()
        self.is_ethernet, self.is_master = is_ethernet, is_master
        self.socket, self.descriptor, self.key = side.socket, descriptor, key

    @property
    def made_of(self) -> tuple[object, ...]:
        """The socket, and the namespace that it is in."""
        return "memif", self.socket, self.key, self.is_master, self.is_ethernet

    async def make(self, vpp: VPP) -> int:
        """VPP opens the namespace by our own descriptor of it: no path of a peer's reaches VPP."""
        name = f"abstract:{self.socket[1:]},netns_name=/proc/{os.getpid()}/fd/{self.descriptor}"
        added = await vpp.call("memif_socket_filename_add_del_v2", is_add=True, socket_filename=name)
        number = added.socket_id
        try:
            made = await vpp.call(
                "memif_create_v2",
                role="MEMIF_ROLE_API_MASTER" if self.is_master else "MEMIF_ROLE_API_SLAVE",
                mode="MEMIF_MODE_API_ETHERNET" if self.is_ethernet else "MEMIF_MODE_API_IP",
                socket_id=number,
                no_zero_copy=True,  # or the peer could read VPP's packet buffers, which are everybody's
                late=lambda late: later(vpp.call("memif_delete", sw_if_index=late.sw_if_index)),
            )
        except BaseException:
            await vpp.call("memif_socket_filename_add_del_v2", is_add=False, socket_id=number)
            raise
        return int(made.sw_if_index)

    async def settle(self, vpp: VPP) -> None:
        """A slave waits for its master, which the endpoint has made already."""
        if not self.is_master:
            where = f"the endpoint's memif socket {self.socket} does not answer"
            await until(lambda: self.is_connected(vpp), _MEMIF_PATIENCE, where)

    async def is_connected(self, vpp: VPP) -> bool:
        """Whether the other side has connected."""
        found = await vpp.dump("sw_interface_dump", sw_if_index=self.index)
        return any(each.sw_if_index == self.index and _LINK_UP in each.flags for each in found)

    def close(self) -> None:
        """Release the namespace."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check_socket(name: str) -> None:
    """Raise `InvalidRequest` for a name that is no abstract socket: VPP would open it anywhere, with its own rights."""
    rest = name.removeprefix("@")
    good = all(each.isascii() and (each.isalnum() or each in "/._:-") for each in rest)
    if rest == name or not 0 < len(rest) <= 90 or not good or ".." in rest.split("/"):
        raise InvalidRequest(
            f"{name[:64]!r} is not the name of a memif socket; expected an abstract one such as @/run/memif/1.sock"
        )


class VxlanPort(Port):
    """A VXLAN tunnel to another node."""

    is_ethernet = True

    def __init__(self, side: Vxlan) -> None:
        super().__init__()
        self._side = side

    @property
    def made_of(self) -> tuple[object, ...]:
        """Its addresses, ports and number."""
        return "vxlan", self._side

    async def make(self, vpp: VPP) -> int:
        """VPP accepts a number once for two addresses and a port."""
        tunnel = tunnel_fields(self._side)
        try:
            made = await vpp.call(
                "vxlan_add_del_tunnel_v3",
                is_add=True,
                late=lambda _: later(vpp.call("vxlan_add_del_tunnel_v3", is_add=False, **tunnel)),
                **tunnel,
            )
        except Rejected as error:
            if error.name == "TUNNEL_EXIST":
                raise VniTaken(f"VNI {self._side.vni} is taken by another wire to node {self._side.remote}") from error
            raise
        return int(made.sw_if_index)


def tunnel_fields(side: Vxlan) -> Fields:
    """A tunnel in VPP's words."""
    return {
        "src_address": side.local,
        "dst_address": side.remote,
        "src_port": side.port,
        "dst_port": side.remote_port,
        "vni": side.vni,
        "mcast_sw_if_index": NONE,
        "decap_next_index": NONE,
    }


class WireguardPort(Port):
    """One end of an encrypted tunnel; all of them share our address and UDP port."""

    def __init__(self, side: Wireguard, own: Address) -> None:
        super().__init__()
        self._side, self._own = side, own
        self._peer = NONE

    @property
    def made_of(self) -> tuple[object, ...]:
        """Keys, port and peer."""
        side = self._side
        return "wireguard", side.private_key, side.port, side.peer_key, side.peer, side.peer_port, self._own

    async def make(self, vpp: VPP) -> int:
        """Make it with its only peer."""
        interface = {"private_key": self._side.private_key, "port": self._side.port, "src_ip": self._own}
        made = await vpp.call(
            "wireguard_interface_create",
            interface=interface,
            late=lambda late: later(vpp.call("wireguard_interface_delete", sw_if_index=late.sw_if_index)),
        )
        try:
            await self._add_peer(vpp, made.sw_if_index)
        except BaseException:
            await vpp.call("wireguard_interface_delete", sw_if_index=made.sw_if_index)
            raise
        return int(made.sw_if_index)

    async def _add_peer(self, vpp: VPP, index: int) -> None:
        peer = {
            "public_key": self._side.peer_key,
            "endpoint": self._side.peer,
            "port": self._side.peer_port,
            "persistent_keepalive": _KEEPALIVE,
            "sw_if_index": index,
            "allowed_ips": list(EVERYTHING),
        }
        self._peer = (await vpp.call("wireguard_peer_add", peer=peer)).peer_index

    async def settle(self, vpp: VPP) -> None:
        """The side that is made last waits for the handshake: a wire that its client received works."""
        if self._side.is_client and self._peer != NONE:  # else it is an earlier process's, and passes packets
            try:
                async with asyncio.timeout(_HANDSHAKE_PATIENCE):
                    await self._established(vpp)
            except TimeoutError:
                node = f"node {self._side.peer} (UDP port {self._side.peer_port})"
                after = f"after {_HANDSHAKE_PATIENCE:.0f} s"
                raise Unavailable(f"{node} does not answer WireGuard {after}; is UDP let through?") from None

    async def _established(self, vpp: VPP) -> None:
        """It may be so before VPP notes that we want to be told."""
        with vpp.events("wireguard_peer_event") as events:
            about: Fields = {"sw_if_index": self.index, "peer_index": self._peer}
            await vpp.call("want_wireguard_peer_events", enable_disable=1, pid=os.getpid(), **about)
            found = await vpp.dump("wireguard_peers_dump", peer_index=self._peer)
            if not any(_ESTABLISHED in each.peer.flags for each in found if each.peer.peer_index == self._peer):
                async for _, event in events:
                    if event.peer_index == self._peer and _ESTABLISHED in event.flags:
                        return


Tagged = tuple[int, str]
"""An interface's number in VPP, and its tag."""


async def erase(vpp: VPP, wanted: Sequence[Tagged]) -> None:
    """Remove interfaces of any kind from VPP, with all that belongs to them; fine if some are not there.

    One with another tag is another one: VPP uses numbers again. None of them is deleted while another one is still
    connected to it. Raises the first error, when all were tried.
    """
    details = await asyncio.gather(*(vpp.dump("sw_interface_dump", sw_if_index=index) for index, _ in wanted))
    found = [one for many in details for one in many if (one.sw_if_index, one.tag) in wanted]
    await in_order(
        [vpp.call(*part, fine={"INVALID_VALUE"}, **fields) for one in found for *part, fields in _parting(one)]
    )
    await in_order([_delete(vpp, one.sw_if_index, one.interface_name) for one in found])


def _parting(one: Record) -> Iterator[tuple[str, Fields]]:
    for is_ip6 in (False, True):
        yield "l3xc_del", {"sw_if_index": one.sw_if_index, "is_ip6": is_ip6}
    if one.l2_address != _NO_MAC:
        yield "sw_interface_set_l2_xconnect", {"rx_sw_if_index": one.sw_if_index, "enable": False}


async def _delete(vpp: VPP, index: int, name: str) -> None:
    match name.rstrip("0123456789./"):
        case kind if kind.startswith("host-"):
            await vpp.call("af_packet_delete", host_if_name=name.removeprefix("host-"))
        case "tap" | "tun":
            await vpp.call("tap_delete_v2", sw_if_index=index)
        case "memif":
            sockets = {each.sw_if_index: each.socket_id for each in await vpp.dump("memif_dump")}
            await vpp.call("memif_delete", sw_if_index=index)
            if index in sockets:
                await vpp.call("memif_socket_filename_add_del_v2", is_add=False, socket_id=sockets[index])
        case "vxlan_tunnel":
            for each in await vpp.dump("vxlan_tunnel_v2_dump", sw_if_index=index):
                side = Vxlan(each.vni, each.src_address, each.src_port, each.dst_address, each.dst_port)
                await vpp.call("vxlan_add_del_tunnel_v3", is_add=False, **tunnel_fields(side))
        case "wg":
            await vpp.call("wireguard_interface_delete", sw_if_index=index)
        case "ipsec":
            await _erase_profile(vpp, index)
            await vpp.call("ipsec_itf_delete", sw_if_index=index)


async def _erase_profile(vpp: VPP, index: int) -> None:
    for each in await vpp.dump("ikev2_profile_dump"):
        if each.profile.tun_itf == index:
            await vpp.call("ikev2_profile_add_del", name=each.profile.name, is_add=False)


async def in_order(calls: Sequence[Awaitable[object]]) -> None:
    """Send calls one behind the other without waiting for replies, which VPP gives in the same order.

    Raises the first error when all have been answered.
    """
    answers = await asyncio.gather(*calls, return_exceptions=True)
    try:
        for error in answers:
            if isinstance(error, BaseException):
                raise error
    finally:
        del answers  # an error's traceback holds this frame


async def until(holds: Callable[[], Awaitable[bool]], seconds: float, otherwise: str) -> None:
    """Wait until it holds. Raises `Unavailable` with what it means if it does not after `seconds`."""
    end = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() >= end:
            raise Unavailable(f"{otherwise} ({seconds:.0f} s)")
        await asyncio.sleep(_PAUSE)


_late: set[asyncio.Future[object]] = set()


def later(work: Awaitable[object]) -> None:
    """Remove what VPP made after its caller gave up; an error means that VPP is gone, and all with it."""

    def ended(task: asyncio.Future[object]) -> None:
        _late.discard(task)
        if not task.cancelled():
            task.exception()

    task = asyncio.ensure_future(work)
    _late.add(task)
    task.add_done_callback(ended)
