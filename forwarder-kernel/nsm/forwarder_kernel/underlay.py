"""The interface under a node's tunnels: found by the node's tunnel address, or by the way to a peer."""

from __future__ import annotations

import errno

from nsm.chains.core import Conflict, Unavailable

from .netlink import Address, Link, NetlinkError, Socket
from .tunnels import Underlay

_NOWHERE = "the tunnel address {} is on no interface of this node; NSM_TUNNEL_IP has to be one of the node's own"
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})


def check_tunnel_address(address: Address) -> None:
    """Raise `Conflict` if `address` is on no interface of the namespace that this thread is in."""
    socket = Socket("our own namespace")
    try:
        if socket.index_of(address) is None:
            raise Conflict(_NOWHERE.format(address))
    finally:
        socket.close()


def look(socket: Socket, own: Address, peer: Address | None) -> Underlay:
    """The underlay of tunnels from `own` to `peer`, or to anybody. Raises `Conflict` or `Unavailable` if it is none."""
    index = socket.index_of(own)
    if index is None:
        raise Conflict(_NOWHERE.format(own))
    holder = _usable(socket, index, own)
    if peer is None:
        return Underlay(holder.name, holder.mtu, own)
    index, mtu = _way(socket, own, peer)
    out = _usable(socket, index, own)
    return Underlay(out.name, min(value for value in (mtu, out.mtu, holder.mtu) if value), own)


def _way(socket: Socket, own: Address, peer: Address) -> tuple[int, int]:
    if peer.version != own.version:
        raise Conflict(f"the peer {peer} and our tunnel address {own} must be both IPv4 or both IPv6")
    if peer == own:
        raise Conflict(f"the peer has our own tunnel address {own}; every node needs one of its own")
    try:
        answer = socket.route(peer)
    except NetlinkError as error:
        if error.errno in _NO_WAY:
            raise Unavailable(f"node {peer} cannot be reached from {own}: there is no route to it") from error
        raise
    return answer.index, answer.mtu


def _usable(socket: Socket, index: int, own: Address) -> Link:
    link = socket.link(index=index)
    if link is None or not link.is_up:
        raise Conflict(f"the underlay {link.name if link else index} ({own}) is down")
    return link
