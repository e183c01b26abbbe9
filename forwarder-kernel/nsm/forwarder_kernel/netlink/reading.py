"""What a namespace has of links, addresses, rules and routes, as the kernel lists them."""

from __future__ import annotations

import ipaddress

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from .encoding import SCOPE_UNIVERSE, TABLE_MAIN, Address, Interface
from .messages import alias_of, decode_address, get_addresses, get_links, index_in, is_loopback, scope_in
from .rules import Rule, TableRoute, ask_for_rules, ask_for_table_routes, read_rule, read_table_route
from .sockets import Socket

WIRES = ("nsm ", "server-", "client-")
"""How the aliases of wires begin, ours and those of upstream's forwarders."""


def addresses(sock: Socket, index: int) -> list[Interface]:
    """The addresses of a link, without those that the kernel gave it; the first of each family is used first."""
    answers = [answer for version in (4, 6) for answer in sock.dump(get_addresses(version))]
    found = [_read_address(answer, index) for answer in answers]
    return [address for address in found if address is not None]


def routes(sock: Socket, index: int) -> list[TableRoute]:
    """The routes of this mesh over a link, in the main table."""
    answers = [answer for version in (4, 6) for answer in sock.dump(ask_for_table_routes(version))]
    found = [read_table_route(answer) for answer in answers]
    return [each for each in found if each is not None and (each.table, each.index) == (TABLE_MAIN, index)]


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


def _read_address(data: bytes, index: int) -> Interface | None:
    """An address that was given to the link of that index; link-local ones are the kernel's own."""
    message = ifaddrmsg(data)
    message.decode()
    if message["index"] != index or message["scope"] != SCOPE_UNIVERSE:
        return None
    found = dict(message["attrs"])
    return ipaddress.ip_interface((found.get("IFA_LOCAL") or found["IFA_ADDRESS"], message["prefixlen"]))
