"""What a link has: addresses and routes of this mesh, as the kernel lists them."""

from __future__ import annotations

import ipaddress

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from .encoding import SCOPE_UNIVERSE, TABLE_MAIN, Address, Interface, Network
from .messages import get_addresses
from .rules import ask_for_table_routes, read_table_route
from .sockets import Socket


def addresses(sock: Socket, index: int) -> set[Interface]:
    """The addresses of a link, without those that the kernel gave it."""
    answers = [answer for version in (4, 6) for answer in sock.dump(get_addresses(version))]
    found = {_read_address(answer, index) for answer in answers}
    return {address for address in found if address is not None}


def routes(sock: Socket, index: int) -> set[tuple[Network, Address | None]]:
    """The routes of this mesh over a link, in the main table: prefix and next hop."""
    answers = [answer for version in (4, 6) for answer in sock.dump(ask_for_table_routes(version))]
    found = [read_table_route(answer) for answer in answers]
    return {
        (each.prefix, each.via)
        for each in found
        if each is not None and (each.table, each.index) == (TABLE_MAIN, index)
    }


def _read_address(data: bytes, index: int) -> Interface | None:
    """An address that was given to the link of that index; link-local ones are the kernel's own."""
    message = ifaddrmsg(data)
    message.decode()
    if message["index"] != index or message["scope"] != SCOPE_UNIVERSE:
        return None
    found = dict(message["attrs"])
    return ipaddress.ip_interface((found.get("IFA_LOCAL") or found["IFA_ADDRESS"], message["prefixlen"]))
