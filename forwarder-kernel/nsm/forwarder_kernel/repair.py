"""The repairs of a wire's end, from its wanted and its current state.

The connection's own settings are restored: the link is up, has its MTU and its mark, its addresses, neighbors and
routes. Additions by an administrator stay. Settings from router advertisements are removed, unless the client accepts
them. A link's new name stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nsm.chains.forwarding import keep
from nsm.chains.forwarding.wires import Settings, Wire
from nsm.chains.netlink import (
    Address,
    Interface,
    Link,
    Message,
    Network,
    Socket,
    metric_of,
    reading,
    remove_address,
    set_mtu,
    set_up,
)
from nsm.chains.netlink.encoding import ROUTE_PROTOCOL, TABLE_MAIN
from nsm.chains.netlink.messages import AddressFound
from nsm.chains.netlink.news import BY_ADVERTISEMENT
from nsm.chains.netlink.rules import Rule, TableRoute, add_rule, add_table_route, remove_table_route

from . import default_routes, end_changes

_MOST_NAMED = 4
"""The number of things of one kind that a text names."""
_DEFAULT_MTU = 1500
"""The MTU of a veth if none is set."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of an end."""

    index: int
    alias: str
    wire: Wire
    settings: Settings
    mac: str
    """The hardware address of the opposite end."""
    follows_advertisements: bool = False

    @property
    def mtu(self) -> int:
        """See `mtu_of`."""
        return mtu_of(self.wire)


def mtu_of(wire: Wire) -> int:
    """The MTU that the links of a wire should have; 0: the kernel's choice."""
    return wire.mtu or (_DEFAULT_MTU if wire.tunnel is None else 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """The current state of an end."""

    link: Link
    addresses: Sequence[AddressFound]
    routes: Sequence[TableRoute]
    """Over this link, whoever made them, in all tables."""
    neighbors: Mapping[Address, str]
    rules: Sequence[Rule] = ()
    """Those of this mesh, if the end has default routes."""
    others: frozenset[Address] = frozenset()
    """The addresses of the workload's other interfaces, likewise."""


@dataclass(frozen=True, slots=True)
class Repair(keep.Repair):
    """One kind of damage: link, mtu, alias, address, neighbor, route, rule or advertisement; and its repair."""

    messages: tuple[Message, ...]


def look(socket: Socket, wanted: Wanted) -> Seen | None:
    """Read the state of an end; None if its link is gone. Raises `NetlinkError` if that happens meanwhile."""
    link = socket.link(index=wanted.index)
    if link is None:
        return None
    settings = wanted.settings
    versions = sorted({prefix.version for prefix, _ in settings.defaults})
    return Seen(
        link,
        reading.addresses_found(socket, wanted.index),
        reading.all_routes(socket, wanted.index),
        reading.neighbors(socket, wanted.index) if settings.neighbors or settings.known else {},
        [rule for version in versions for rule in reading.rules(socket, version)],
        frozenset(reading.addresses_beside_wires(socket)) if versions else frozenset(),
    )


def repairs(wanted: Wanted, seen: Seen) -> list[Repair]:
    """The necessary repairs, in this order; none if the end is as it should be."""
    found = [
        _of_link(wanted, seen),
        _of_mtu(wanted, seen),
        _of_alias(wanted, seen),
        _of_advertisements(wanted, seen),
        _of_addresses(wanted, seen),
        _of_neighbors(wanted, seen),
        _of_routes(wanted, seen),
        _of_defaults(wanted, seen),
    ]
    return [repair for repair in found if repair is not None]


def _of_link(wanted: Wanted, seen: Seen) -> Repair | None:
    if seen.link.is_set_up:
        return None
    answers = wanted.settings.proxy_arp or None
    return Repair("link", "link down", "set up", (set_up(wanted.index, wanted.alias, proxy_arp=answers),))


def _of_mtu(wanted: Wanted, seen: Seen) -> Repair | None:
    if not wanted.mtu or seen.link.mtu == wanted.mtu:
        return None
    return Repair("mtu", f"MTU {seen.link.mtu}", f"set to {wanted.mtu}", (set_mtu(wanted.index, wanted.mtu),))


def _of_alias(wanted: Wanted, seen: Seen) -> Repair | None:
    if seen.link.alias == wanted.alias:
        return None
    return Repair("alias", f"alias {seen.link.alias!r}", "written anew", (set_up(wanted.index, wanted.alias),))


def _of_advertisements(wanted: Wanted, seen: Seen) -> Repair | None:
    if wanted.follows_advertisements:
        return None
    addresses = [each.interface for each in seen.addresses if each.is_advertised and each.is_global]
    addresses = [each for each in addresses if each not in wanted.settings.addresses]
    routes = [each for each in seen.routes if each.protocol == BY_ADVERTISEMENT]
    if not addresses and not routes:
        return None
    messages = [remove_address(wanted.index, each) for each in addresses]
    messages += [replace(remove_table_route(each), fine=end_changes.GONE) for each in routes]
    what = _named("address", addresses) if addresses else _named("route", [each.prefix for each in routes])
    return Repair("advertisement", f"{what} by a router advertisement", "removed", tuple(messages))


def _of_addresses(wanted: Wanted, seen: Seen) -> Repair | None:
    there = [each.interface for each in seen.addresses if each.interface in wanted.settings.addresses]
    missing = [each for each in wanted.settings.addresses if each not in there]
    cut = [each for each in there if _is_cut_off(each, wanted.index, seen.routes)] if seen.link.is_set_up else []
    if missing:
        messages = end_changes.address_changes(wanted.index, there, wanted.settings.addresses)
        return Repair("address", f"{_named('address', missing)} gone", "added", tuple(messages))
    if cut:
        return Repair("route", f"{_named('route', _networks(cut))} gone", "added", tuple(_anew(wanted, cut)))
    return None


def _is_cut_off(address: Interface, index: int, routes: Iterable[TableRoute]) -> bool:
    """Whether the route is missing that the kernel makes for the subnet of an address."""
    network = address.network
    if network.num_addresses == 1:
        return False
    return not any((each.prefix, each.index, each.table) == (network, index, TABLE_MAIN) for each in routes)


def _anew(wanted: Wanted, cut: Sequence[Interface]) -> list[Message]:
    """Add addresses again: all of a family, so that they keep their order, and the routes that depend on them."""
    versions = {address.version for address in cut}
    addresses = tuple(address for address in wanted.settings.addresses if address.version in versions)
    routes = tuple(route for route in wanted.settings.routes if route[0].version in versions)
    messages = [remove_address(wanted.index, address) for address in addresses]
    part = Settings(addresses, routes, (), ())
    return messages + end_changes.additions(wanted.index, wanted.wire, part, wanted.mac)


def _of_neighbors(wanted: Wanted, seen: Seen) -> Repair | None:
    settings = wanted.settings
    macs = dict.fromkeys(settings.neighbors, wanted.mac) | dict(settings.known)
    lost = [address for address, mac in macs.items() if seen.neighbors.get(address) != mac]
    if not lost:
        return None
    part = Settings(
        (),
        (),
        tuple(address for address in settings.neighbors if address in lost),
        tuple(each for each in settings.known if each[0] in lost),
    )
    messages = end_changes.additions(wanted.index, wanted.wire, part, wanted.mac)
    return Repair("neighbor", f"{_named('neighbor', lost)} gone", "added", tuple(messages))


def _of_routes(wanted: Wanted, seen: Seen) -> Repair | None:
    order = wanted.wire.order
    ours = [each for each in seen.routes if (each.table, each.protocol) == (TABLE_MAIN, ROUTE_PROTOCOL)]
    there = {(each.prefix, each.via, each.metric) for each in ours}
    lost = [route for route in wanted.settings.routes if (*route, metric_of(*route, order)) not in there]
    if not lost:
        return None
    messages = end_changes.additions(wanted.index, wanted.wire, Settings((), tuple(lost), (), ()), wanted.mac)
    return Repair("route", f"{_named('route', [prefix for prefix, _ in lost])} gone", "added", tuple(messages))


def _of_defaults(wanted: Wanted, seen: Seen) -> Repair | None:
    settings, order = wanted.settings, wanted.wire.order
    rules, tables = default_routes.wanted(seen.others, wanted.index, settings.defaults, order)
    lost = [rule for rule in rules if rule not in seen.rules]
    there = {(each.table, each.prefix, each.via) for each in seen.routes}
    empty = [each for each in tables if (each.table, each.prefix, each.via) not in there]
    if not lost and not empty:
        return None
    messages = [*map(add_table_route, empty), *(add_rule(rule, fine=default_routes.THERE) for rule in lost)]
    what = _named("rule", [_rule(rule) for rule in lost]) if lost else _named("route", [each.prefix for each in empty])
    return Repair("rule" if lost else "route", f"{what} gone", "added", tuple(messages))


def _rule(rule: Rule) -> str:
    return f"{rule.priority}: {rule.selector} lookup {rule.table}"


def _networks(addresses: Iterable[Interface]) -> list[Network]:
    return list(dict.fromkeys(address.network for address in addresses))


def _named(what: str, things: Sequence[object]) -> str:
    names = ", ".join(map(str, things[:_MOST_NAMED]))
    plural = {"address": "addresses"}.get(what, f"{what}s")
    more = f" and {len(things) - _MOST_NAMED} more" if len(things) > _MOST_NAMED else ""
    return f"{what if len(things) == 1 else plural} {names}{more}"
