"""Policy rules and the tables that they lead to, encoded (rtnetlink, ``linux/fib_rules.h``).

As with other messages, requests are packed here and answers are parsed by the library.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from pyroute2.netlink.rtnl.fibmsg import fibmsg

from nsm.chains.model.policies import Ports

from .encoding import (
    CREATE,
    DELROUTE,
    DUMP,
    EXCL,
    GETROUTE,
    HEADER,
    NEWROUTE,
    ONLINK,
    REPLACE,
    ROUTE,
    ROUTE_PROTOCOL,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    UNICAST,
    Address,
    Message,
    Network,
    attribute,
    attributes_in,
    family_of,
    number,
    number_in,
    request,
    scope_of,
)

_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_FRA_SRC, _FRA_PRIORITY, _FRA_SUPPRESS, _FRA_TABLE, _FRA_PROTOCOL = 2, 6, 14, 15, 21
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24
_NOT_SUPPRESSED = 0xFFFFFFFF
_TO_TABLE = 1
_TABLE_IN_ATTRIBUTE = 0
_PORTS = struct.Struct("=HH")

_OURS = attribute(_FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
_RULE = struct.Struct("=BBBBBxxBI")
"""Family, length of destination and source, TOS, table, action, flags."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The packets that a rule matches. None and 0 match everything."""

    version: int
    """4 or 6: the family of the packets."""
    source: Network | None = None
    protocol: int = 0
    """IP protocol number."""
    dst_ports: Ports | None = None
    src_ports: Ports | None = None

    def __str__(self) -> str:
        """As `ip rule` writes it."""
        words = [f"from {self.source or 'all'}"]
        words += [f"ipproto {self.protocol}"] if self.protocol else []
        words += [f"sport {_text(self.src_ports)}"] if self.src_ports else []
        words += [f"dport {_text(self.dst_ports)}"] if self.dst_ports else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets of `selector` use `table`; of several matching rules, the one of lowest priority is tried first."""

    selector: Selector
    table: int
    priority: int
    narrower_than: int | None = None
    """Only routes with longer prefixes than that are used; otherwise the next rule is tried."""


@dataclass(frozen=True, slots=True)
class TableRoute:
    """A route of a table: via a next hop, which need not be on a subnet of the link, or to the link itself."""

    table: int
    index: int
    """Of the link."""
    prefix: Network
    via: Address | None
    metric: int = 0
    """Of several to one prefix the lowest is used; 0: not set."""
    protocol: int = ROUTE_PROTOCOL
    """Who made it."""


def add_rule(rule: Rule, *, fine: frozenset[int] = frozenset()) -> Message:
    """Add a rule; one like it must not be there."""
    return _rule(rule, _NEWRULE, CREATE | EXCL, f"add rule {rule.selector}", fine)


def remove_rule(rule: Rule) -> Message:
    """Remove a rule."""
    return _rule(rule, _DELRULE, 0, f"remove rule {rule.selector}", frozenset())


def _rule(rule: Rule, command: int, flags: int, about: str, fine: frozenset[int]) -> Message:
    selector, source = rule.selector, rule.selector.source
    family, length = family_of(selector.version), source.prefixlen if source is not None else 0
    body = _RULE.pack(family, 0, length, 0, _TABLE_IN_ATTRIBUTE, _TO_TABLE, 0)
    body += number(_FRA_TABLE, rule.table) + number(_FRA_PRIORITY, rule.priority)
    body += _OURS
    if rule.narrower_than is not None:
        body += number(_FRA_SUPPRESS, rule.narrower_than)
    if source is not None:
        body += attribute(_FRA_SRC, source.network_address.packed)
    if selector.protocol:
        body += attribute(_FRA_IP_PROTO, bytes([selector.protocol]))
    if selector.src_ports is not None:
        body += attribute(_FRA_SPORT_RANGE, _PORTS.pack(*selector.src_ports))
    if selector.dst_ports is not None:
        body += attribute(_FRA_DPORT_RANGE, _PORTS.pack(*selector.dst_ports))
    return request(command, flags, body, about, fine=fine)


def add_table_route(route: TableRoute, *, exclusive: bool = False) -> Message:
    """Add or replace a route of a table; `exclusive`: none to its prefix must be there."""
    flags = CREATE | (EXCL if exclusive else REPLACE)
    return _table_route(route, NEWROUTE, flags, f"add route {route.prefix} to table {route.table}")


def remove_table_route(route: TableRoute) -> Message:
    """Remove a route of a table."""
    return _table_route(route, DELROUTE, 0, f"remove route {route.prefix} from table {route.table}")


def _table_route(route: TableRoute, command: int, flags: int, about: str) -> Message:
    prefix, via = route.prefix, route.via
    fields = (family_of(prefix.version), prefix.prefixlen, 0, 0, _TABLE_IN_ATTRIBUTE, route.protocol)
    body = ROUTE.pack(*fields, scope_of(prefix, via), UNICAST, 0 if via is None else ONLINK)
    body += number(RTA_TABLE, route.table) + number(RTA_OIF, route.index)
    body += attribute(RTA_DST, prefix.network_address.packed)
    if via is not None:
        body += attribute(RTA_GATEWAY, via.packed)
    if route.metric:
        body += number(RTA_PRIORITY, route.metric)
    return request(command, flags, body, about)


def ask_for_rules(version: int) -> Message:
    """Ask for all rules of a family."""
    body = _RULE.pack(family_of(version), 0, 0, 0, 0, 0, 0)
    return request(_GETRULE, DUMP, body, "list the rules", ack=False)


def ask_for_table_routes(version: int, protocol: int = ROUTE_PROTOCOL, index: int = 0) -> Message:
    """Ask for the routes of this mesh, or of another `protocol` (0: any), of a family and of all tables.

    With an `index` only for those over that link; kernels before 4.20 answer with all in any case.
    """
    body = ROUTE.pack(family_of(version), 0, 0, 0, 0, protocol, 0, 0, 0) + (number(RTA_OIF, index) if index else b"")
    return request(GETROUTE, DUMP, body, "list the routes", ack=False)


def read_rule(data: bytes) -> Rule | None:
    """A rule of this mesh in an answer; None if it is another's."""
    if _OURS not in data:
        return None  # what the kernel has by itself need not be decoded
    message = fibmsg(data)
    message.decode()
    found = dict(message["attrs"])
    if found.get("FRA_PROTOCOL") != ROUTE_PROTOCOL or message["action"] != _TO_TABLE:
        return None
    version = 4 if message["family"] == socket.AF_INET else 6
    source = ipaddress.ip_network((found["FRA_SRC"], message["src_len"])) if "FRA_SRC" in found else None
    dst_ports, src_ports = _ports(found.get("FRA_DPORT_RANGE")), _ports(found.get("FRA_SPORT_RANGE"))
    selector = Selector(version, source, found.get("FRA_IP_PROTO", 0), dst_ports, src_ports)
    suppressed = found.get("FRA_SUPPRESS_PREFIXLEN", _NOT_SUPPRESSED)
    narrower_than = None if suppressed == _NOT_SUPPRESSED else suppressed
    table = found.get("FRA_TABLE", message["table"])
    return Rule(selector, table, found.get("FRA_PRIORITY", 0), narrower_than)


def table_of(data: bytes) -> int:
    """The table of a rule, whoever made it; 0 if it has none."""
    fixed = _RULE.unpack_from(data, HEADER.size)
    return number_in(attributes_in(data, HEADER.size + _RULE.size), _FRA_TABLE) or int(fixed[4])


def read_table_route(data: bytes) -> TableRoute | None:
    """A route of this mesh in an answer; None if it is another's, or has several next hops."""
    route = read_any_route(data)
    return route if route.protocol == ROUTE_PROTOCOL and route.index else None


def read_any_route(data: bytes) -> TableRoute:
    """A route out of an answer, whoever's; one of several next hops, or of none, is of no link: index 0."""
    family, length, _, _, table, protocol, _, _, _ = ROUTE.unpack_from(data, HEADER.size)
    found = attributes_in(data, HEADER.size + ROUTE.size)
    packed = found.get(RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    via = ipaddress.ip_address(found[RTA_GATEWAY]) if RTA_GATEWAY in found else None
    prefix = ipaddress.ip_network((packed, length))
    table = number_in(found, RTA_TABLE) or table
    return TableRoute(table, number_in(found, RTA_OIF), prefix, via, number_in(found, RTA_PRIORITY), protocol)


def _ports(text: str | None) -> Ports | None:
    """A range of ports as the library gives it: `first:last`."""
    if text is None:
        return None
    first, last = text.split(":")
    return int(first), int(last)


def _text(ports: Ports) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"
