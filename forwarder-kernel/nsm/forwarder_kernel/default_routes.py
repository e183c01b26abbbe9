"""A wire's default route carries packets without a narrower route, in place of the workload's own default route.

Of two default routes in one table the kernel takes the one whose next hop answers at this moment (IPv4:
`fib_select_default`; IPv6: RFC 4861, 6.3.6), so that packets of an idle wire would leave by the other. A wire's default
route has therefore a table of its own, which rules lead to; in the order of their priorities, behind policy routes:

    29000  from ADDRESS lookup main                each address of the workload's other interfaces
    29001  lookup main suppress_prefixlength 0     narrower routes, whoever's
    29002  lookup TABLE                            the first wire's; the next ones follow in their order

So packets that arrived by another interface are answered by that one, and the workload's own routes are unchanged:
they apply again when the wire is removed. A rule whose wire is gone leads to an empty table, and changes nothing.
A table's number is derived from its link's index: nothing has to be remembered, and every process computes the same.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection, Iterable, Sequence

from nsm.chains.forwarding.wires import Route
from nsm.chains.netlink import Address, Message, Socket, reading
from nsm.chains.netlink.encoding import TABLE_MAIN
from nsm.chains.netlink.rules import (
    Rule,
    Selector,
    TableRoute,
    add_rule,
    add_table_route,
    remove_rule,
    remove_table_route,
)

FIRST_TABLE = 1 << 31
"""The table of a link is this one and its index."""
FIRST_PRIORITY = 29000
_MAIN, _WIRES = FIRST_PRIORITY + 1, FIRST_PRIORITY + 2
THERE = frozenset({errno.EEXIST})
"""The kernel's answers for objects that already exist."""
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV})


def additions(socket: Socket, index: int, routes: Sequence[Route], order: int) -> list[Message]:
    """Gives a link its default routes, the first of each family; existing ones are fine. `order`: see `Wire`."""
    rules, tables = wanted(reading.addresses_beside_wires(socket), index, routes, order)
    return [*map(add_table_route, tables), *(add_rule(rule, fine=THERE) for rule in rules)]


def wanted(
    own: Collection[Address], index: int, routes: Sequence[Route], order: int
) -> tuple[list[Rule], list[TableRoute]]:
    """The rules and the tables' routes of a link; `own` are the addresses of the workload's other interfaces."""
    rules: list[Rule] = []
    tables: list[TableRoute] = []
    for version, (prefix, via) in {route[0].version: route for route in reversed(routes)}.items():
        rules += _as_before(sorted(own, key=int), version)
        rules.append(Rule(Selector(version), TABLE_MAIN, _MAIN, 0))
        rules.append(Rule(Selector(version), _table(index), _WIRES + order))
        tables.append(TableRoute(_table(index), index, prefix, via))
    return rules, tables


def remove(socket: Socket, index: int, routes: Collection[Route]) -> None:
    """Remove default routes of a link, which may be gone; with the last wire, the rules that all of them share."""
    for version in {prefix.version for prefix, _ in routes}:
        rules = reading.rules(socket, version)
        removed = lost(socket, rules, {index})
        if len(removed) == len([rule for rule in rules if rule.table >= FIRST_TABLE]):
            removed += [rule for rule in rules if rule.table == TABLE_MAIN and rule.priority in (FIRST_PRIORITY, _MAIN)]
        socket.apply([remove_rule(rule) for rule in removed], ignore=_GONE)
    tables = [TableRoute(_table(index), index, prefix, via) for prefix, via in routes]
    socket.apply([remove_table_route(route) for route in tables], ignore=_GONE)


def lost(socket: Socket, rules: Iterable[Rule], gone: Collection[int] = ()) -> list[Rule]:
    """The rules that lead to the default route of a link that does not exist, or is one of `gone`."""
    of_links: dict[int, list[Rule]] = {}
    for rule in rules:
        if rule.table >= FIRST_TABLE:
            of_links.setdefault(rule.table - FIRST_TABLE, []).append(rule)
    indexes = [index for index in of_links if index in gone or not socket.has_link(index)]
    return [rule for index in indexes for rule in of_links[index]]


def _table(index: int) -> int:
    return FIRST_TABLE + index


def _as_before(own: Sequence[Address], version: int) -> list[Rule]:
    sources = [ipaddress.ip_network(address) for address in own if address.version == version]
    return [Rule(Selector(version, source), TABLE_MAIN, FIRST_PRIORITY) for source in sources]
