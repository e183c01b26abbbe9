"""The interface under a node's tunnels: found by the node's tunnel address, or by the way to a peer."""

from __future__ import annotations

import errno
import socket as sockets
import time
from collections.abc import Awaitable, Callable, Collection

from nsm.chains.core import Conflict, Exhausted, Unavailable
from nsm.chains.forwarding.dataplane import Underlay
from nsm.chains.netlink import Address, Changes, Link, NetlinkError, Socket

_NOWHERE = "the tunnel address {} is on no interface of this node; NSM_TUNNEL_IP has to be one of the node's own"
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})
_LIFETIME = 5.0
"""Seconds: the kernel does not report when it learns the MTU of a path."""
_MOST = 1000
"""The number of remembered routes: peers' addresses are not trusted."""

Way = tuple[Address, Address | None]
"""From our address to a peer's, or to any."""


class Underlays:
    """The result of `look`, for as long as nothing changes in this node's links, addresses, routes and rules.

    `in_worker` runs work in the one thread that is in the node's namespace.
    """

    def __init__(
        self,
        look: Callable[[Address, Address | None], Awaitable[Underlay]],
        in_worker: Callable[[Callable[[], Changes]], Awaitable[Changes]],
    ) -> None:
        self._look, self._in_worker = look, in_worker
        self._changes: Changes | None = None
        self._known: dict[Way, tuple[float, Underlay]] = {}

    async def find(self, own: Address, peer: Address | None) -> Underlay:
        """The underlay of tunnels from `own` to `peer`; see `look`."""
        changes = self._changes or await self._in_worker(self._listen)
        if changes.look() or len(self._known) > _MOST:
            self._known = {}
        known = self._known
        since, found = known.get((own, peer), (0.0, None))
        if found is not None and time.monotonic() - since < _LIFETIME:
            return found
        found = await self._look(own, peer)
        known[own, peer] = time.monotonic(), found  # useless if something changed meanwhile: it is not looked up then
        return found

    def _listen(self) -> Changes:
        """Continues when its caller is cancelled, so the caller does not keep its result."""
        self._changes = self._changes or Changes()
        return self._changes

    def close(self) -> None:
        """Stop watching the kernel; in the thread that may be about to start it."""
        if self._changes is not None:
            self._changes.close()


def check_tunnel_address(address: Address) -> None:
    """Raise `Conflict` if `address` is on no interface of the namespace that this thread is in."""
    socket = Socket("our own namespace")
    try:
        if socket.index_of(address) is None:
            raise Conflict(_NOWHERE.format(address))
    finally:
        socket.close()


def look(socket: Socket, own: Address, peer: Address | None) -> Underlay:
    """The underlay of tunnels from `own` to `peer`, or to any address. Raises `Conflict` or `Unavailable`."""
    index = socket.index_of(own)
    if index is None:
        raise Conflict(_NOWHERE.format(own))
    holder = _usable(socket, index, own)
    if peer is None:
        return Underlay(holder.name, holder.mtu, own)
    index, mtu = _way(socket, own, peer)
    out = _usable(socket, index, own)
    return Underlay(out.name, min(value for value in (mtu, out.mtu, holder.mtu) if value), own)


def uplink(socket: Socket, name: str) -> Link:
    """An interface of this node by its name. Raises `Conflict` if it does not exist, or is down."""
    link = socket.link(name=name)
    if link is None:
        raise Conflict(f"this node has no uplink {name}; NSM_DEVICE_SELECTOR_FILE has to name interfaces that it has")
    if not link.is_up:
        raise Conflict(f"the uplink {name} is down")
    return link


def _way(socket: Socket, own: Address, peer: Address) -> tuple[int, int]:
    if peer.version != own.version:
        raise Conflict(f"the peer {peer} and our tunnel address {own} must be both IPv4 or both IPv6")
    if peer == own:
        raise Conflict(f"the peer has our own tunnel address {own}; every node needs one of its own")
    try:
        answer = socket.route(peer)
    except NetlinkError as error:
        if error.errno in _NO_WAY:
            what = f"node {peer} cannot be reached from {own}: there is no route to it"
            raise Unavailable(
                what, remedy="reconnect the two nodes, or add a route between their tunnel addresses"
            ) from error
        raise
    if answer.is_local:
        raise Conflict(f"the peer's address {peer} is one of this node's own")
    return answer.index, answer.mtu


def _usable(socket: Socket, index: int, own: Address) -> Link:
    link = socket.link(index=index)
    if link is None or not link.is_up:
        what = f"the underlay {link.name if link else index} ({own}) is down"
        raise Conflict(what, remedy="set that interface of the node up, or reconnect its cable or link")
    return link


def free_udp_port(wanted: int, taken: Collection[int]) -> int:
    """`wanted` if it is free on this node, else any that is; `taken` are promised to others."""
    candidates = [wanted, *([0] * (len(taken) + 1))]
    for candidate in candidates:
        port = _bound(candidate) if candidate not in taken else None
        if port is not None and port not in taken:
            return port
    raise Exhausted("found no free UDP port")


def _bound(port: int) -> int | None:
    """The port, or a free one for 0, if it is free for IPv4 and IPv6."""
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as four:
        try:
            four.bind(("", port))
            port = four.getsockname()[1]
            with sockets.socket(sockets.AF_INET6, sockets.SOCK_DGRAM) as six:
                six.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 1)
                six.bind(("", port))
        except OSError as error:
            return port if error.errno == errno.EAFNOSUPPORT else None
    return port
