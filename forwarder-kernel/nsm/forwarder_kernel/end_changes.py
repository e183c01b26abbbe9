"""The changes that give an end of a wire its addresses, neighbors and routes, in the connection's order."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Sequence
from typing import TypeVar

from nsm.chains.forwarding.wires import Route, Settings, Wire
from nsm.chains.netlink import (
    Address,
    Interface,
    Message,
    Socket,
    add_address,
    add_neighbor,
    add_route,
    keep_asking,
    metric_of,
    reading,
    remove_address,
    remove_neighbor,
    remove_route,
)
from nsm.chains.netlink.bridges import enslave
from nsm.chains.netlink.rules import TableRoute, add_table_route

from . import default_routes

T = TypeVar("T")
_ANY = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT, errno.ENXIO})
"""The kernel's answers for objects that no longer exist."""


def everything(socket: Socket, index: int, wire: Wire, settings: Settings, mac: str) -> list[Message]:
    """The changes for all settings of a link; existing ones are fine. `mac` is the opposite end's hardware address."""
    part_of = _joint(socket, index, wire, settings) if settings.joint else []
    return [*part_of, *additions(index, wire, settings, mac), *_defaults(socket, index, wire, settings)]


def _joint(socket: Socket, index: int, wire: Wire, settings: Settings) -> list[Message]:
    """Makes a bare link a part of what its holder has prepared: it passes packets from the beginning."""
    if wire.arp:
        bridge = socket.link(name=settings.joint)
        return [enslave(index, bridge.index)] if bridge is not None and bridge.kind == "bridge" else []
    routes = {each.version: TableRoute(int(settings.joint), index, _ANY[each.version], each) for each in _far(settings)}
    return [add_table_route(route) for route in routes.values()]


def _far(settings: Settings) -> list[Address]:
    """The opposite addresses, the first of each family last."""
    return list(reversed(settings.opposite))


def obsolete(socket: Socket, index: int, wire: Wire, settings: Settings) -> tuple[list[Message], list[Route]]:
    """Removes unwanted settings from a link of an earlier process, and puts its addresses in order.

    Also the default routes among that, which have more than the changes remove.
    """
    routes = [
        each
        for each in reading.routes(socket, index)
        if (each.prefix, each.via) not in settings.routes or each.metric != metric_of(each.prefix, each.via, wire.order)
    ]
    removals = [remove_route(index, each.prefix, each.via, each.metric) for each in routes]
    addresses = address_changes(index, reading.addresses(socket, index), settings.addresses)
    return [*removals, *addresses], [(each.prefix, each.via) for each in routes if not each.prefix.prefixlen]


def differences(socket: Socket, index: int, wire: Wire, before: Settings, after: Settings, mac: str) -> list[Message]:
    """Changes a link from the settings `before` to `after`; settings in both are not touched."""
    gone = _without(before.routes, after.routes)
    added = Settings(
        (),
        _without(after.routes, before.routes),
        _without(after.neighbors, before.neighbors),
        _without(after.known, before.known),
    )
    return [
        *(remove_route(index, prefix, via, metric_of(prefix, via, wire.order)) for prefix, via in gone),
        *(remove_neighbor(index, address) for address in _without(before.neighbors, after.neighbors)),
        *address_changes(index, before.addresses, after.addresses),
        *additions(index, wire, added, mac),
        *(_defaults(socket, index, wire, after) if before.defaults != after.defaults else []),
    ]


def additions(index: int, wire: Wire, settings: Settings, mac: str) -> list[Message]:
    """Gives a link addresses, neighbors and routes; existing ones are fine."""
    messages = [
        *(add_address(index, address) for address in in_time(settings.addresses)),
        *(add_neighbor(index, address, mac) for address in settings.neighbors),
        *(add_neighbor(index, address, own, permanent=False) for address, own in settings.known),
        *(add_route(index, prefix, via, order=wire.order) for prefix, via in sorted(settings.routes, key=_links_first)),
    ]
    if wire.asks and any(via is not None and prefix.version == 6 for prefix, via in settings.routes):
        messages.insert(0, keep_asking(index))
    return messages


def _defaults(socket: Socket, index: int, wire: Wire, settings: Settings) -> list[Message]:
    """Sends packets without a narrower route over a wire that has a default route."""
    if not settings.defaults:
        return []
    return default_routes.additions(socket, index, settings.defaults, wire.order)


def _links_first(route: Route) -> bool:
    return route[1] is not None


def in_time(addresses: Sequence[Interface]) -> list[Interface]:
    """In which order to add them: the kernel puts a new IPv4 address behind others, and an IPv6 one before them."""
    return [address for address in addresses if address.version == 4] + [
        address for address in reversed(addresses) if address.version == 6
    ]


def _without(some: tuple[T, ...], others: tuple[T, ...]) -> tuple[T, ...]:
    if some == others:
        return ()
    known = set(others)
    return tuple(each for each in some if each not in known)


def address_changes(index: int, before: Sequence[Interface], after: Sequence[Interface]) -> list[Message]:
    """Set the addresses of `after`, in this order; those that stay and keep their place are not touched.

    New ones are added before any is removed: with its last IPv4 address a link loses all of its IPv4 routes.
    """
    if tuple(before) == tuple(after):
        return []
    messages: list[Message] = []
    for version in (4, 6):
        wanted = [address for address in in_time(after) if address.version == version]
        there = [address for address in in_time(before) if address.version == version]
        kept = [address for address in there if address in wanted]
        same = next((n for n, pair in enumerate(zip(kept, wanted, strict=False)) if pair[0] != pair[1]), len(kept))
        for address in wanted[same:]:
            messages += [remove_address(index, address)] if address in kept else []
            messages.append(add_address(index, address))
        gone = [address for address in there if address not in wanted]
        messages += [remove_address(index, address) for address in gone]
        if gone or same < len(kept):  # IPv4 addresses of one subnet are removed with the first of them
            messages += [add_address(index, address) for address in wanted if _has_subnet(address)]
    return messages


def _has_subnet(address: Interface) -> bool:
    return address.version == 4 and address.network.num_addresses > 1
