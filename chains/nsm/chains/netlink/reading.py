"""The links, addresses, rules and routes of a namespace, as the kernel lists them."""

from __future__ import annotations

from collections.abc import Collection

from .encoding import SCOPE_UNIVERSE, TABLE_MAIN, Address, Interface
from .messages import (
    AddressFound,
    alias_of,
    decode_address,
    decode_interface,
    decode_neighbor,
    get_addresses,
    get_links,
    get_neighbors,
    index_in,
    is_loopback,
    scope_in,
)
from .rules import (
    Rule,
    TableRoute,
    ask_for_rules,
    ask_for_table_routes,
    read_any_route,
    read_rule,
    read_table_route,
)
from .sockets import Socket

WIRES = ("nsm ", "server-", "client-")
"""How the aliases of wires begin, ours and those of upstream's forwarders."""


def addresses(sock: Socket, index: int) -> list[Interface]:
    """The addresses of a link, without those that the kernel gave it; the first of each family is used first."""
    return [each.interface for each in addresses_found(sock, index) if each.is_global]


def addresses_found(sock: Socket, index: int) -> list[AddressFound]:
    """All addresses of a link, link-local ones too."""
    answers = [answer for version in (4, 6) for answer in sock.dump(get_addresses(version, index))]
    return [found for answer in answers if (found := decode_interface(answer)).index == index]


def all_routes(sock: Socket, index: int) -> list[TableRoute]:
    """The routes over a link in all tables, whoever made them. Raises `NetlinkError` if the link does not exist."""
    answers = [answer for version in (4, 6) for answer in sock.dump(ask_for_table_routes(version, 0, index))]
    return [route for answer in answers if (route := read_any_route(answer)).index == index]


def neighbors(sock: Socket, index: int) -> dict[Address, str]:
    """The hardware addresses that are known on a link; empty for one that is looked for."""
    answers = [answer for version in (4, 6) for answer in sock.dump(get_neighbors(version, index))]
    return {address: mac for of, address, mac in map(decode_neighbor, answers) if of == index}


def routes(sock: Socket, index: int) -> list[TableRoute]:
    """The routes of this mesh over a link, in the main table."""
    return routes_of(sock, (index,))


def routes_of(sock: Socket, links: Collection[int]) -> list[TableRoute]:
    """The routes of this mesh over several links, in the main table."""
    answers = [answer for version in (4, 6) for answer in sock.dump(ask_for_table_routes(version))]
    found = [read_table_route(answer) for answer in answers]
    return [each for each in found if each is not None and each.table == TABLE_MAIN and each.index in links]


def rules(sock: Socket, version: int) -> list[Rule]:
    """The rules of this mesh, of IPv4 or IPv6."""
    return [rule for answer in sock.dump(ask_for_rules(version)) if (rule := read_rule(answer)) is not None]


def addresses_beside_wires(sock: Socket) -> set[Address]:
    """The addresses of other interfaces than wires and loopback: those that reach further than a link."""
    links = [(index_in(answer), alias_of(answer), is_loopback(answer)) for answer in sock.dump(get_links())]
    others = {index for index, alias, is_lo in links if not is_lo and not alias.startswith(WIRES)}
    answers = [answer for version in (4, 6) for answer in sock.dump(get_addresses(version))] if others else []
    found = [(decode_address(answer), scope_in(answer)) for answer in answers]
    return {address for (index, address), scope in found if index in others and scope == SCOPE_UNIVERSE}
