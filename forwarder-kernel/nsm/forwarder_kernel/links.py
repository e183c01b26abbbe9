"""The devices that wires are made of: one kind for a local wire, one for each kind of tunnel."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from nsm.chains.core import Conflict

from .ends import Wire
from .netlink import (
    Link,
    LinkEnd,
    Message,
    Namespace,
    NetlinkError,
    add_vxlan_peer,
    create_macvlan,
    create_veth,
    create_vxlan,
    create_wireguard,
    rename,
    set_mtu,
)
from .tunnels import Breakout, VniTaken, Vxlan, Wireguard
from .wireguard_go import Process


@dataclass(frozen=True, slots=True)
class Means:
    """What a wire is made with, beside the kernel: a process for a WireGuard in userspace, a link for a breakout."""

    process: Process | None = None
    lower: int = 0
    """The index of the link, in the node's namespace, that the wire's end is on."""


def make(own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd], means: Means) -> None:
    """Make the device or devices of a wire where its ends are, down; `target` is the first one's place.

    Raises `NetlinkError`; nothing is left then.
    """
    match wire.tunnel:
        case Wireguard() as wireguard if means.process is not None:
            _take(target, wireguard, ends[0], means.process)
        case _:
            own.socket.apply(_creation(wire, ends, means.lower))


def prepare(target: Namespace, wire: Wire, index: int, process: Process | None) -> None:
    """Give a new device what it needs before it is set up."""
    match wire.tunnel:
        case Vxlan(port=port, remote=remote, remote_port=remote_port) if port != remote_port:
            target.socket.apply([add_vxlan_peer(index, remote, remote_port)])
        case Wireguard(private_key=key, port=port, peer_key=peer_key, peer=peer, peer_port=peer_port):
            if process is None:
                target.wireguard().set(index, key, port, peer_key, peer, peer_port)
            elif wire.mtu:
                target.socket.apply([set_mtu(index, wire.mtu)])


def last_handshake(target: Namespace, index: int, process: Process | None) -> int:
    """When a WireGuard device has heard its peer (Unix time, seconds); 0: not yet."""
    return target.wireguard().last_handshake(index) if process is None else process.last_handshake()


def has_mac(wire: Wire) -> bool:
    """Whether devices of this kind have hardware addresses."""
    return not isinstance(wire.tunnel, Wireguard)


def has_carrier_watch(wire: Wire) -> bool:
    """Whether the kernel tells of a device of this kind when it begins to pass packets; others do at once."""
    return wire.tunnel is None or isinstance(wire.tunnel, Breakout)


def is_as_wanted(wire: Wire, there: Sequence[Link], means: Means) -> bool:
    """Whether devices that exist are what `make` would make, but for what they are set to."""
    match wire.tunnel:
        case None:
            return all(link.kind == "veth" for link in there)
        case Vxlan() as vxlan:
            return there[0].kind == "vxlan" and _is_same_vxlan(vxlan, there[0])
        case Breakout():
            return there[0].kind == "macvlan" and there[0].lower == means.lower
        case Wireguard():
            return False  # it has the keys of a process that is gone


def explain_refusal(error: NetlinkError, wire: Wire) -> None:
    """Raise what a refused creation means if that has to do with the tunnel; its name is free."""
    if error.errno == errno.EEXIST and isinstance(wire.tunnel, Vxlan):
        vni, port = wire.tunnel.vni, wire.tunnel.port
        raise VniTaken(f"VNI {vni} is taken on this node by another VXLAN device on UDP port {port}") from error


def explain_down(error: NetlinkError, wire: Wire) -> None:
    """Raise why a device cannot be set up if that has to do with the tunnel."""
    if error.errno == errno.EADDRINUSE and isinstance(wire.tunnel, Vxlan | Wireguard):
        hint = "; NSM_VXLAN_PORT names another one for VXLAN" if isinstance(wire.tunnel, Vxlan) else ""
        raise Conflict(f"UDP port {wire.tunnel.port} of this node is taken by somebody else{hint}") from error


def _creation(wire: Wire, ends: Sequence[LinkEnd], lower: int) -> list[Message]:
    match wire.tunnel:
        case None:
            return [create_veth(ends[0], ends[1], mtu=wire.mtu, arp=wire.arp)]
        case Vxlan(vni, local, port, remote, remote_port):
            peer = remote if remote_port == port else None
            return [create_vxlan(ends[0], vni, local, port, peer, mtu=wire.mtu)]
        case Wireguard():
            return [create_wireguard(ends[0], mtu=wire.mtu)]
        case Breakout():
            return [create_macvlan(ends[0], lower, mtu=wire.mtu)]


def _take(target: Namespace, wireguard: Wireguard, end: LinkEnd, process: Process) -> None:
    """Its interface is there already, under another name."""
    if target.socket.link(name=end.name) is not None:
        raise NetlinkError(f"create {end.name}", target.where, errno.EEXIST)
    process.set(wireguard)
    target.socket.apply([rename(end.index, end.name)])


def _is_same_vxlan(vxlan: Vxlan, there: Link) -> bool:
    family = "" if vxlan.local.version == 4 else "6"
    names = ("ID", f"LOCAL{family}", f"GROUP{family}", "PORT")
    found = [str(there.details.get(f"IFLA_VXLAN_{name}")) for name in names]
    wanted = [vxlan.vni, vxlan.local, vxlan.remote, vxlan.port]
    return found == [str(value) for value in wanted] and vxlan.remote_port == vxlan.port
