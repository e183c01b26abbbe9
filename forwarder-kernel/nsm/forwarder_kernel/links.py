"""The devices that wires are made of: one kind for a local wire, one for each kind of tunnel."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from nsm.chains.core import Conflict

from .ends import Wire
from .netlink import Link, LinkEnd, Message, Namespace, NetlinkError, add_vxlan_peer, create_veth, create_vxlan
from .tunnels import VniTaken, Vxlan


def make(own: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
    """Make the device or devices of a wire where its ends are, down. Raises `NetlinkError`; nothing is left then."""
    own.socket.apply(_creation(wire, ends))


def is_as_wanted(wire: Wire, there: Sequence[Link]) -> bool:
    """Whether devices that exist are what `make` would make, but for what they are set to."""
    match wire.tunnel:
        case None:
            return all(link.kind == "veth" for link in there)
        case Vxlan() as vxlan:
            return there[0].kind == "vxlan" and _is_same_vxlan(vxlan, there[0])


def completion(wire: Wire, index: int) -> list[Message]:
    """What a device needs in its own namespace before it is set up."""
    match wire.tunnel:
        case Vxlan(port=port, remote=remote, remote_port=remote_port) if port != remote_port:
            return [add_vxlan_peer(index, remote, remote_port)]
    return []


def explain_refusal(error: NetlinkError, wire: Wire) -> None:
    """Raise what a refused creation means if that has to do with the tunnel; its name is free."""
    if error.errno == errno.EEXIST and isinstance(wire.tunnel, Vxlan):
        vni, port = wire.tunnel.vni, wire.tunnel.port
        raise VniTaken(f"VNI {vni} is taken on this node by another VXLAN device on UDP port {port}") from error


def explain_down(error: NetlinkError, wire: Wire) -> None:
    """Raise why a device cannot be set up if that has to do with the tunnel."""
    if error.errno == errno.EADDRINUSE and isinstance(wire.tunnel, Vxlan):
        raise Conflict(
            f"UDP port {wire.tunnel.port} is taken on this node; VXLAN needs it (NSM_VXLAN_PORT names another)"
        ) from error


def has_carrier_watch(wire: Wire) -> bool:
    """Whether the kernel tells of a device of this kind when it begins to pass packets; others do at once."""
    return wire.tunnel is None


def _creation(wire: Wire, ends: Sequence[LinkEnd]) -> list[Message]:
    match wire.tunnel:
        case None:
            return [create_veth(ends[0], ends[1], mtu=wire.mtu, arp=wire.arp)]
        case Vxlan(vni, local, port, remote, remote_port):
            peer = remote if remote_port == port else None
            return [create_vxlan(ends[0], vni, local, port, peer, mtu=wire.mtu)]


def _is_same_vxlan(vxlan: Vxlan, there: Link) -> bool:
    family = "" if vxlan.local.version == 4 else "6"
    names = ("ID", f"LOCAL{family}", f"GROUP{family}", "PORT")
    found = [str(there.details.get(f"IFLA_VXLAN_{name}")) for name in names]
    wanted = [vxlan.vni, vxlan.local, vxlan.remote, vxlan.port]
    return found == [str(value) for value in wanted] and vxlan.remote_port == vxlan.port
