"""Policy routes: packets of a client that a policy selects go over the wire by a table of their own.

Every policy has a rule and a table, in the client's namespace. Tables are of a reserved range; which link a table
serves is written in its routes, and both rules and routes carry the protocol number of this mesh. So what belongs to a
wire can be read from the kernel, by this process and by the one that comes after it, and wires of several forwarders
can share a namespace. A rule stands for as long as its table has routes: one whose table is empty has lost its link.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL
from nsm.chains.core import Call, Conflict, Element, Exhausted, Handler, Key, MeshError, Refused, both_to_the_end

from .netlink import Message, Namespace, Namespaces, NetlinkError, Socket
from .netlink.rules import (
    Rule,
    Selector,
    TableRoute,
    add_rule,
    add_table_route,
    ask_for_rules,
    ask_for_table_routes,
    read_rule,
    read_table_route,
    remove_rule,
    remove_table_route,
)
from .policies import Policies, Routes, policies_of

FIRST_TABLE, LAST_TABLE = 0x4E530000, 0x4E53FFFF
"""The tables that this mesh may use, in any namespace: 1314062336 to 1314127871."""
FIRST_PRIORITY, LAST_PRIORITY = 10000, 29999
"""The priorities of its rules: behind the kernel's table `local` (0), before `main` (32766)."""

T = TypeVar("T")
Table = tuple[int, int]
"""Family (4 or 6) and number: the two families have tables of their own."""
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
_THERE = frozenset({errno.EEXIST})
_TRIES = 5


class PolicyRoutes(Element):
    """Install the policies that the endpoint gave to the client; keep them in step, remove them with the connection.

    Stands in the server's chain before what makes the wire, and works where the client's side is a kernel interface.
    A refresh that changes nothing touches nothing. Raises `InvalidRequest` for a policy that cannot be, and
    `NetlinkError` for one that the kernel refuses; the connection's policies are as before then.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="policy-routes")
        self._namespaces: Namespaces | None = None
        self._installed: Key[_Installed] = Key("policy routes")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the wire be made, then install."""
        connection = await rest.request(call)
        near = connection.mechanism
        if near is None or near.type != KERNEL:
            return connection
        policies = policies_of(_ip_context(connection))
        installed = call.live.get(self._installed)
        if installed is None:
            installed = call.live.put(self._installed, _Installed())
            call.undo.add(lambda: self._remove(call))
        elif not policies and not installed.policies:
            return connection
        await self._in_worker(lambda: self._install(installed, near, policies))
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove them while those further on close."""
        await both_to_the_end(rest.close(call), self._remove(call))

    async def aclose(self) -> None:
        """Stop; what is installed stays, as the wires do."""
        if self._namespaces is not None:
            await self._in_worker(self._namespaces.close)
        self._worker.shutdown()

    def open_namespaces(self) -> int:
        """How many namespaces are held: what a leak test counts."""
        return len(self._namespaces) if self._namespaces is not None else 0

    async def _remove(self, call: Call) -> None:
        if (installed := call.live.pop(self._installed)) is not None:
            await self._in_worker(lambda: self._uninstall(installed))

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    # --- in the worker's thread

    def _install(self, installed: _Installed, near: Mechanism, policies: Policies) -> None:
        place = near.parameters.get(INODE_URL, ""), near.parameters.get(INTERFACE_NAME, "")
        if place != installed.place:
            self._uninstall(installed)
            installed.place = place
        namespace = installed.namespace = installed.namespace or self._take(place[0])
        try:
            self._protect_node(namespace, policies)
            if policies or installed.policies or _rules(namespace.socket):
                self._keep_in_step(installed, namespace, policies)
        finally:
            if not installed.policies:
                self._let_go(installed)

    def _protect_node(self, namespace: Namespace, policies: Policies) -> None:
        """Rules come before all routes: in the node's own namespace they are for packets of the wire only."""
        assert self._namespaces is not None
        if os.path.sameopenfile(namespace.descriptor, self._namespaces.own.descriptor):
            for selector in policies:
                if selector.source is None or not selector.source.prefixlen:
                    raise Refused(f"the policy {selector} is for packets of the node itself; it has to name a source")

    def _keep_in_step(self, installed: _Installed, namespace: Namespace, policies: Policies) -> None:
        name = installed.place[1]
        link = namespace.socket.link(name=name)
        if link is None:
            raise Conflict(f"there is no interface {name!r} in {namespace.where} to route by")
        if (link.index, _in_order(policies)) != (installed.index, _in_order(installed.policies)):
            self._change(installed, namespace, link.index, policies)

    def _change(self, installed: _Installed, namespace: Namespace, index: int, policies: Policies) -> None:
        before = installed.policies if index == installed.index else {}
        try:
            _set(namespace, installed.place[1], index, policies)
        except MeshError:
            with contextlib.suppress(MeshError):
                _set(namespace, installed.place[1], index, before)
            raise
        installed.index, installed.policies = index, policies

    def _uninstall(self, installed: _Installed) -> None:
        if installed.namespace is not None:
            try:
                _set(installed.namespace, installed.place[1], installed.index, {})
            finally:
                self._let_go(installed)

    def _take(self, url: str) -> Namespace:
        if self._namespaces is None:
            self._namespaces = Namespaces(with_own=True)  # which may be taken was said when the wire was made
        return self._namespaces.take(url.removeprefix("file://"))

    def _let_go(self, installed: _Installed) -> None:
        assert self._namespaces is not None
        if installed.namespace is not None:
            self._namespaces.give(installed.namespace)
        installed.namespace, installed.index, installed.policies = None, 0, {}


@dataclass(slots=True)
class _Installed:
    """What one connection has; its namespace is held for as long as there are policies."""

    place: tuple[str, str] = "", ""
    """URL of the namespace, and the interface's name there."""
    namespace: Namespace | None = None
    index: int = 0
    policies: Policies = field(default_factory=dict)


def _ip_context(connection: Connection) -> IpContext:
    context = connection.context
    return context.ip_context if context is not None and context.ip_context is not None else IpContext()


def _in_order(policies: Policies) -> list[tuple[Selector, Routes]]:
    return list(policies.items())


# --- the kernel's rules and tables


class _Found:
    """The rules and tables of this mesh in one namespace, as the kernel has them."""

    def __init__(self, socket: Socket, index: int) -> None:
        self.rules, self.routes = _rules(socket), _table_routes(socket)
        self.own_routes = {route for route in self.routes if route.index == index}
        own = {_table(route) for route in self.own_routes}
        self.own_rules = {rule for rule in self.rules if (rule.selector.version, rule.table) in own}

    def lost_rules(self) -> set[Rule]:
        """The rules whose table is empty: their link is gone, and whoever finds them removes them."""
        full = {_table(route) for route in self.routes}
        return {rule for rule in self.rules if (rule.selector.version, rule.table) not in full}

    def free_tables(self, count: int) -> list[int]:
        """Some that nobody uses. Raises `Exhausted`."""
        taken = {rule.table for rule in self.rules} | {route.table for route in self.routes}
        if LAST_TABLE - FIRST_TABLE + 1 - len(taken) < count:
            raise Exhausted(f"no routing table is left between {FIRST_TABLE} and {LAST_TABLE}")
        free: dict[int, None] = {}
        while len(free) < count:
            number = FIRST_TABLE + secrets.randbelow(LAST_TABLE - FIRST_TABLE + 1)
            if number not in taken:
                free[number] = None
        return list(free)


def _set(namespace: Namespace, name: str, index: int, policies: Policies) -> None:
    """Give the link `index` these policies and no others; what is there already is not touched.

    A table is filled before its rule comes, and its rule goes before it is emptied. Raises `NetlinkError`.
    """
    found = _Found(namespace.socket, index)
    there = {rule.selector: rule for rule in found.own_rules}
    tables = {selector: there[selector].table for selector in policies if selector in there}
    known = _routes(index, policies, tables)
    _apply(namespace, name, [add_table_route(route) for route in known - found.own_routes])
    tables |= _fill_new_tables(
        namespace, name, index, policies, found, [each for each in policies if each not in there]
    )
    priorities = priorities_of([there[each].priority if each in there else None for each in policies])
    rules = {Rule(each, tables[each], priority) for each, priority in zip(policies, priorities, strict=True)}
    _apply(namespace, name, [add_rule(rule) for rule in rules - found.own_rules])
    replaced = {(route.table, route.prefix) for route in known}
    obsolete = {route for route in found.own_routes - known if (route.table, route.prefix) not in replaced}
    removals = [remove_rule(rule) for rule in (found.own_rules - rules) | found.lost_rules()]
    removals += [remove_table_route(route) for route in obsolete]
    namespace.socket.apply(removals, ignore=_GONE)


def _fill_new_tables(
    namespace: Namespace, name: str, index: int, policies: Policies, found: _Found, selectors: Sequence[Selector]
) -> dict[Selector, int]:
    """Choose tables and fill them; one that another process chose at this moment is left to it. Raises `Conflict`."""
    for _ in range(_TRIES if selectors else 0):
        tables = dict(zip(selectors, found.free_tables(len(selectors)), strict=True))
        routes = _routes(index, policies, tables)
        try:
            _apply(namespace, name, [add_table_route(route, exclusive=True) for route in routes])
            if not any(
                route.index != index and route.table in tables.values() for route in _table_routes(namespace.socket)
            ):
                return tables
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        namespace.socket.apply([remove_table_route(route) for route in routes], ignore=_GONE)
    if selectors:
        raise Conflict(f"another process takes every routing table that is free in {namespace.where}")
    return {}


def priorities_of(there: Sequence[int | None]) -> list[int]:
    """Priorities that grow from rule to rule; those that are there are kept if they grow and leave room."""
    kept: list[int | None] = []
    highest = FIRST_PRIORITY - 1
    for priority in there:
        grows = priority is not None and highest < priority <= LAST_PRIORITY
        highest = priority if grows and priority is not None else highest
        kept.append(priority if grows else None)
    return _spread(kept) or _spread([None] * len(there)) or []


def _spread(kept: Sequence[int | None]) -> list[int] | None:
    """Put what is None evenly between its neighbors; None if there is no room."""
    result: list[int] = []
    below, missing = FIRST_PRIORITY - 1, 0
    for priority in [*kept, LAST_PRIORITY + 1]:
        if priority is None:
            missing += 1
            continue
        if priority - below <= missing:
            return None
        result += [below + (priority - below) * nth // (missing + 1) for nth in range(1, missing + 1)]
        result.append(priority)
        below, missing = priority, 0
    return result[:-1]


def _routes(index: int, policies: Policies, tables: Mapping[Selector, int]) -> set[TableRoute]:
    return {
        TableRoute(table, index, prefix, via)
        for selector, table in tables.items()
        for prefix, via in policies[selector].items()
    }


def _rules(socket: Socket) -> set[Rule]:
    answers = [answer for version in (4, 6) for answer in socket.dump(ask_for_rules(version))]
    return {rule for answer in answers if (rule := read_rule(answer)) is not None and _is_ours(rule.table)}


def _table_routes(socket: Socket) -> set[TableRoute]:
    answers = [answer for version in (4, 6) for answer in socket.dump(ask_for_table_routes(version))]
    found = [read_table_route(answer) for answer in answers]
    return {route for route in found if route is not None and _is_ours(route.table)}


def _table(route: TableRoute) -> Table:
    return route.prefix.version, route.table


def _is_ours(table: int) -> bool:
    return FIRST_TABLE <= table <= LAST_TABLE


def _apply(namespace: Namespace, name: str, messages: Sequence[Message]) -> None:
    """Make changes; where IPv6 is off by default, switch it on for the link."""
    try:
        namespace.socket.apply(messages)
    except NetlinkError as error:
        if error.errno != errno.EACCES:
            raise
        namespace.enable_ipv6(name)
        namespace.socket.apply(messages, ignore=_THERE)
