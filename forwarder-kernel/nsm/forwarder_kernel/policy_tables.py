"""The rules and tables of policy routes in one namespace: the current ones in the kernel, and the wanted ones.

A policy has a table, and a rule for each length of the prefixes in it, so that policies of several wires which select
the same packet are one routing table: the longest prefix decides, then the order of the wires, which is written into
the metrics of their routes. Policies of one wire stay in the order of their list. Those for all packets come last, each
behind the narrower routes of the main table, such as those to the endpoints of other wires.

Ours are marked: rules by their protocol number, and a table by a rule that leads to it and the link in its routes.
So both can be read from the kernel, by this process and by its successor, and wires of several forwarders
can share a namespace. A rule whose table is empty has lost its link.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count

from nsm.chains.core import Conflict, Exhausted, MeshError
from nsm.chains.netlink import Message, Namespace, NetlinkError, Socket, reading
from nsm.chains.netlink.encoding import ROUTE_PROTOCOL, TABLE_MAIN
from nsm.chains.netlink.rules import (
    Rule,
    Selector,
    TableRoute,
    add_rule,
    add_table_route,
    ask_for_rules,
    ask_for_table_routes,
    read_any_route,
    read_rule,
    remove_rule,
    remove_table_route,
    table_of,
)

from . import default_routes
from .policies import Policies

FROM_1, RESERVED = "from-1", "reserved"
"""Which numbers tables get: the first free ones from 1, as upstream's forwarders do; or those of a range."""
FIRST_TABLE, LAST_TABLE = 0x4E530000, 0x4E53FFFF
"""That range: 1314062336 to 1314127871."""
FIRST_PRIORITY, LAST_PRIORITY = 10000, default_routes.FIRST_PRIORITY - 1
"""The priorities of rules: behind the kernel's table `local` (0), before `main` (32766)."""
_FIRST_FOR_ALL = 20000
_BOOT = 3
"""RTPROT_BOOT, as upstream's forwarders use: `ip -6 route get` names every other protocol in its answer."""
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
_THERE = frozenset({errno.EEXIST})
_TRIES = 5
_LONGEST = {4: 32, 6: 128}

Table = tuple[int, int]
"""Family (4 or 6) and number: the two families have tables of their own."""


@dataclass(frozen=True, slots=True)
class PolicyLink:
    """The link that policies lead to."""

    index: int
    name: str
    order: int
    """The place of its wire among those of its client."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A rule that has no priority yet, and the facts that determine its place among others."""

    selector: Selector
    table: int
    narrower_than: int | None
    length: int
    """That of the shortest prefix in the table which the rule is for."""
    wire: tuple[int, str] = (-1, "")
    there: int | None = None
    """The priority that it has now."""

    def rule(self, priority: int) -> Rule:
        return Rule(self.selector, self.table, priority, self.narrower_than)


class Found:
    """The rules and tables of policies in one namespace, as the kernel has them."""

    def __init__(self, socket: Socket, index: int) -> None:
        self._socket = socket
        rules = [
            (read_rule(data), table_of(data)) for version in (4, 6) for data in socket.dump(ask_for_rules(version))
        ]
        routes = [read_any_route(data) for version in (4, 6) for data in socket.dump(ask_for_table_routes(version, 0))]
        self._routes: dict[Table, list[TableRoute]] = {}
        for route in routes:
            self._routes.setdefault((route.prefix.version, route.table), []).append(route)
        ours = [rule for rule, _ in rules if rule is not None]
        self.of_main = {rule for rule in ours if rule.table == TABLE_MAIN and _is_of_policies(rule)}
        of_policies = {rule for rule in ours if is_of_policy(rule)}
        self.lost = {rule for rule in of_policies if _key(rule) not in self._routes}
        """Whoever finds them removes them."""
        self.lost |= set(default_routes.lost(socket, ours))
        self.rules = of_policies - self.lost
        self.taken = {table for rule, table in rules if rule not in self.lost} | {route.table for route in routes}
        """All tables in use, of either family."""
        self.own = {rule for rule in self.rules if any(each.index == index for each in self._routes[_key(rule)])}
        tables = {_key(rule) for rule in self.own}
        self.own_routes = {each for table in tables for each in self._routes[table] if each.index == index}
        self.own_routes |= {each for each in routes if each.index == index and _is_half_done(each)}

    @property
    def full(self) -> Collection[Table]:
        """The tables that have routes."""
        return self._routes.keys()

    def of_others(self, version: int) -> Iterator[list[_Step]]:
        """The rules of each other wire, in their order."""
        by_link: dict[int, list[_Step]] = {}
        for rule in sorted(self.rules - self.own, key=lambda rule: rule.priority):
            if rule.selector.version == version:
                routes = self._routes[_key(rule)]
                by_link.setdefault(routes[0].index, []).append(self._step(rule, routes))
        for index, steps in by_link.items():
            link = self._socket.link(index=index)
            yield [replace(step, wire=(step.wire[0], link.name if link is not None else "")) for step in steps]

    def belongs_to(self, link: PolicyLink, table: int) -> bool:
        """Whether only this link has routes in a table."""
        routes = [*self._routes.get((4, table), ()), *self._routes.get((6, table), ())]
        return all(route.index == link.index for route in routes)

    def is_used(self, table: int, index: int) -> bool:
        """Whether another link has routes in a table now."""
        answers = [data for version in (4, 6) for data in self._socket.dump(ask_for_table_routes(version, 0))]
        return any(each.table == table and each.index != index for each in map(read_any_route, answers))

    def _step(self, rule: Rule, routes: Sequence[TableRoute]) -> _Step:
        shortest = min(route.prefix.prefixlen for route in routes)
        length = shortest if rule.narrower_than is None else rule.narrower_than + 1
        return _Step(rule.selector, rule.table, rule.narrower_than, length, (routes[0].metric - 1, ""), rule.priority)


def is_of_policy(rule: Rule) -> bool:
    """Whether a rule of this mesh leads to the table of a policy."""
    return rule.table != TABLE_MAIN and rule.table < default_routes.FIRST_TABLE


def _is_half_done(route: TableRoute) -> bool:
    """Whether a route is one of a table whose rules may not be there yet: the process that filled it was killed."""
    return route.protocol == ROUTE_PROTOCOL and route.table != TABLE_MAIN and route.table < default_routes.FIRST_TABLE


def has_any(socket: Socket) -> bool:
    """Whether any wire has policies in this namespace; rules of removed wires are removed."""
    rules = [rule for version in (4, 6) for rule in reading.rules(socket, version)]
    socket.apply([remove_rule(rule) for rule in default_routes.lost(socket, rules)], ignore=_GONE)
    return any(is_of_policy(rule) for rule in rules)


def incomplete(
    namespace: Namespace, link: PolicyLink, policies: Policies, tables: Mapping[Selector, int]
) -> list[Selector]:
    """The policies of a link, installed in `tables`, that have lost a rule or a route. Raises `NetlinkError`."""
    found = Found(namespace.socket, link.index)
    rules = {(rule.selector, rule.table, rule.narrower_than) for rule in found.own}
    lost = []
    for selector, routes in policies.items():
        table = tables.get(selector, 0)
        steps = _steps(selector, table, {prefix.prefixlen for prefix in routes}, link)
        has_rules = all((step.selector, step.table, step.narrower_than) in rules for step in steps)
        if not has_rules or _routes(link, {selector: routes}, {selector: table}) - found.own_routes:
            lost.append(selector)
    return lost


def install(
    namespace: Namespace,
    link: PolicyLink,
    policies: Policies,
    numbers: str = FROM_1,
    former: Mapping[Selector, int] | None = None,
) -> dict[Selector, int]:
    """Give a link these policies and no others; returns their tables. Existing ones are not touched.

    A policy gets the table that it has or, if it lost its rules, the one that it had in `former` unless that is used by
    another. A table is filled before its rules are added, and its rules are removed before it is emptied. Raises
    `NetlinkError`.
    """
    found = Found(namespace.socket, link.index)
    namespace.socket.apply([remove_rule(rule) for rule in found.lost], ignore=_GONE)
    there = {selector: table for selector, table in (former or {}).items() if found.belongs_to(link, table)}
    there |= {rule.selector: rule.table for rule in found.own}
    tables = {selector: there[selector] for selector in policies if selector in there}
    known = _routes(link, policies, tables)
    _apply(namespace, link.name, [add_table_route(route) for route in known - found.own_routes])
    new = _fill_new_tables(namespace, link, policies, found, tables, numbers)
    before = found.rules | found.of_main
    try:
        wanted = {rule for version in (4, 6) for rule in _rules(version, link, policies, {**tables, **new}, found)}
        _apply(namespace, link.name, [add_rule(rule) for rule in sorted(wanted - before, key=_by_priority)])
    except MeshError:
        _empty(namespace, _routes(link, policies, new))
        raise
    replaced = {(route.table, route.prefix, route.metric) for route in known}
    obsolete = {each for each in found.own_routes - known if (each.table, each.prefix, each.metric) not in replaced}
    removals = [remove_rule(rule) for rule in before - wanted]
    namespace.socket.apply(removals, ignore=_GONE)
    _empty(namespace, obsolete)
    return {**tables, **new}


# --- which table


def _fill_new_tables(
    namespace: Namespace,
    link: PolicyLink,
    policies: Policies,
    found: Found,
    tables: Mapping[Selector, int],
    numbers: str,
) -> dict[Selector, int]:
    """Choose tables and fill them; one that another process takes at this moment is left to it. Raises `Conflict`."""
    new = [selector for selector in policies if selector not in tables]
    for _ in range(_TRIES if new else 0):
        chosen = _choose(new, tables, found.taken, numbers, found.full)
        routes = _routes(link, policies, chosen)
        try:
            _apply(namespace, link.name, [add_table_route(route, exclusive=True) for route in routes])
            if not any(found.is_used(table, link.index) for table in set(chosen.values())):
                return chosen
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                _empty(namespace, routes)
                raise
        _empty(namespace, routes)
        found = Found(namespace.socket, link.index)
    if new:
        raise Conflict(f"another process takes every free routing table in {namespace.where}")
    return {}


def _empty(namespace: Namespace, routes: Iterable[TableRoute]) -> None:
    namespace.socket.apply([remove_table_route(route) for route in routes], ignore=_GONE)


def _choose(
    new: Sequence[Selector],
    tables: Mapping[Selector, int],
    taken: Collection[int],
    numbers: str,
    full: Collection[Table] = (),
) -> dict[Selector, int]:
    """A table for each, unused in either family; a policy for both families has one number in both.

    `taken` are numbers that are in use, `full` the tables that have routes.
    """
    free = _free(taken, numbers)
    of_policy = {_policy(selector): (selector.version, table) for selector, table in tables.items()}
    chosen: dict[Selector, int] = {}
    for selector in new:
        version, table = of_policy.get(_policy(selector), (0, 0))
        if version in (0, selector.version) or (selector.version, table) in full:
            table = next(free)
        chosen[selector] = table
        of_policy[_policy(selector)] = selector.version, table
    return chosen


def _policy(selector: Selector) -> Selector:
    return replace(selector, version=0)


def _free(taken: Collection[int], numbers: str) -> Iterator[int]:
    """Unused tables, one after the other. Raises `Exhausted`."""
    if numbers == FROM_1:
        yield from (number for number in count(1) if number not in taken)
    given = {number for number in taken if FIRST_TABLE <= number <= LAST_TABLE}
    while len(given) <= LAST_TABLE - FIRST_TABLE:
        number = FIRST_TABLE + secrets.randbelow(LAST_TABLE - FIRST_TABLE + 1)
        if number not in given:
            given.add(number)
            yield number
    raise Exhausted(f"no routing table is left between {FIRST_TABLE} and {LAST_TABLE}")


def _routes(link: PolicyLink, policies: Policies, tables: Mapping[Selector, int]) -> set[TableRoute]:
    return {
        TableRoute(table, link.index, prefix, via, link.order + 1, _BOOT if prefix.version == 6 else ROUTE_PROTOCOL)
        for selector, table in tables.items()
        for prefix, via in policies[selector].items()
    }


# --- in which order


def _rules(
    version: int, link: PolicyLink, policies: Policies, tables: Mapping[Selector, int], found: Found
) -> list[Rule]:
    """All rules of policies of a family, including other wires': they share one order."""
    there = {(rule.selector, rule.table, rule.narrower_than): rule.priority for rule in found.own}
    own = [
        replace(step, there=there.get((step.selector, step.table, step.narrower_than)))
        for selector, routes in policies.items()
        if selector.version == version
        for step in _steps(selector, tables[selector], {prefix.prefixlen for prefix in routes}, link)
    ]
    of_some, of_all = _ranked([own, *found.of_others(version)])
    mains = {rule.narrower_than: rule.priority for rule in found.of_main if rule.selector.version == version}
    behind = _behind_main(version, of_all, mains)
    return [*_given(of_some, FIRST_PRIORITY, _FIRST_FOR_ALL - 1), *_given(behind, _FIRST_FOR_ALL, LAST_PRIORITY)]


def _steps(selector: Selector, table: int, lengths: Iterable[int], link: PolicyLink) -> Iterator[_Step]:
    """A rule for each length of prefix in a table, the longest one first."""
    shortest = min(lengths)
    for length in sorted(lengths, reverse=True):
        narrower_than = None if length == shortest else length - 1
        yield _Step(selector, table, narrower_than, length, (link.order, link.name))


def _ranked(wires: Iterable[Sequence[_Step]]) -> tuple[list[_Step], list[_Step]]:
    """The rules of several wires, each wire's in its order: those for some packets and those for all, unchanged."""
    of_some: list[tuple[int, _Step]] = []
    of_all: list[tuple[int, _Step]] = []
    for steps in wires:
        begin = next((place for place, step in enumerate(steps) if _is_for_all(step.selector)), len(steps))
        of_some += _with_levels(steps[:begin])
        of_all += _with_levels(steps[begin:])
    return _sorted(of_some), _sorted(of_all)


def _with_levels(steps: Sequence[_Step]) -> Iterator[tuple[int, _Step]]:
    """Each with the length of prefix that it is sorted by: never less than that of one which comes after it."""
    longest = accumulate((step.length for step in reversed(steps)), max)
    return zip(reversed(list(longest)), steps, strict=True)


def _sorted(ranked: Sequence[tuple[int, _Step]]) -> list[_Step]:
    return [step for _, step in sorted(ranked, key=lambda each: (-each[0], each[1].wire))]


def _behind_main(version: int, steps: Sequence[_Step], mains: Mapping[int | None, int]) -> Iterator[_Step]:
    """Put a rule for narrower routes in the main table before rules for all packets."""
    bound: int | None = None
    for step in steps:
        if bound is None or step.length < bound:
            bound = step.length
            if bound < _LONGEST[version]:
                yield _Step(Selector(version), TABLE_MAIN, bound, bound, there=mains.get(bound))
        yield step


def _is_for_all(selector: Selector) -> bool:
    has_source = selector.source is not None and selector.source.prefixlen > 0
    return not (has_source or selector.protocol or selector.dst_ports or selector.src_ports)


def _given(steps: Iterable[_Step], first: int, last: int) -> list[Rule]:
    ordered = list(steps)
    priorities = priorities_of([step.there for step in ordered], first, last)
    return [step.rule(priority) for step, priority in zip(ordered, priorities, strict=True)]


def priorities_of(there: Sequence[int | None], first: int, last: int) -> list[int]:
    """Priorities that grow from rule to rule; existing ones are kept if they grow and leave room."""
    kept: list[int | None] = []
    highest = first - 1
    for priority in there:
        grows = priority is not None and highest < priority <= last
        highest = priority if grows and priority is not None else highest
        kept.append(priority if grows else None)
    spread = _spread(kept, first, last)
    if spread is None and (spread := _spread([None] * len(there), first, last)) is None:
        raise Exhausted(f"{len(there)} rules of policies do not fit between the priorities {first} and {last}")
    return spread


def _spread(kept: Sequence[int | None], first: int, last: int) -> list[int] | None:
    """Distribute each None evenly between its neighbors; None if there is no room."""
    result: list[int] = []
    below, missing = first - 1, 0
    for priority in [*kept, last + 1]:
        if priority is None:
            missing += 1
            continue
        if priority - below <= missing:
            return None
        result += [below + (priority - below) * nth // (missing + 1) for nth in range(1, missing + 1)]
        result.append(priority)
        below, missing = priority, 0
    return result[:-1]


def _by_priority(rule: Rule) -> int:
    return rule.priority


def _is_of_policies(rule: Rule) -> bool:
    return FIRST_PRIORITY <= rule.priority <= LAST_PRIORITY


def _key(rule: Rule) -> Table:
    return rule.selector.version, rule.table


def _apply(namespace: Namespace, name: str, messages: Sequence[Message]) -> None:
    """Make changes; where IPv6 is off by default, switch it on for the link."""
    try:
        namespace.socket.apply(messages)
    except NetlinkError as error:
        if error.errno != errno.EACCES:
            raise
        namespace.enable_ipv6(name)
        namespace.socket.apply(messages, ignore=_THERE)
