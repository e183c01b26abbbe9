"""The rules of a firewall, from a YAML file: our own kind, or the ACL of upstream's firewall.

Every fault is reported with its line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsm.chains.model.addresses import read_interface

if TYPE_CHECKING:
    from nsm.chains.reading.yaml_reader import YamlReader

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Ports = tuple[int, int]
"""The first and the last one."""

TO_SERVICE, TO_CLIENT, BOTH = "to-service", "to-client", "both"
ALLOW, DENY = "allow", "deny"
ICMP, ICMPV6, TCP, UDP, SCTP = 1, 58, 6, 17, 132
_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "sctp": (SCTP,), "icmp": (ICMP, ICMPV6)}
WITH_PORTS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_KEYS = {"name", "action", "protocol", "from", "to", "ports", "source_ports", "direction"}
_UPSTREAM = {
    "ispermit",
    "isipv6",
    "proto",
    "srcprefix",
    "dstprefix",
    "srcportoricmptypefirst",
    "srcportoricmptypelast",
    "dstportoricmpcodefirst",
    "dstportoricmpcodelast",
    "tcpflagsmask",
    "tcpflagsvalue",
}
_LARGEST_PORT, _LARGEST_BYTE, _LONGEST_NAME, _MOST_RULES = 65535, 255, 100, 1000


class RulesError(Exception):
    """The file cannot be used; the text has a line for each fault."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which packets a rule concerns, and whether they pass; an empty field means any."""

    name: str
    allows: bool
    protocols: tuple[int, ...] = ()
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    source_ports: tuple[Ports, ...] = ()
    ports: tuple[Ports, ...] = ()
    icmp_types: tuple[Ports, ...] = ()
    icmp_codes: tuple[Ports, ...] = ()
    tcp_flags: tuple[int, int] | None = None
    """Mask and value."""
    direction: str = TO_SERVICE
    is_mirrored: bool = False
    """Whether it also concerns the other direction, with both sides swapped, as upstream's rules do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in the order in which they are tried, and whether packets pass that none concerns."""

    rules: tuple[Rule, ...]
    allows_others: bool = False


def read_rules(text: str, source: str) -> Rules:
    """The rules in `text`; errors name `source`. Raises `RulesError`."""
    from nsm.chains.reading.yaml_reader import YamlReader  # noqa: PLC0415 - it needs a library, and help does not

    reader = YamlReader(source)
    root = reader.root(text)
    if root is None:
        if not reader.faults:
            reader.fault(None, "the file is empty; expected the keys default and rules")
        raise RulesError("\n".join(reader.faults))
    found = (_Acl if _is_acl(root) else _Own)(reader).rules(root)
    if reader.faults:
        raise RulesError("\n".join(reader.faults))
    return found


def _is_acl(root: Any) -> bool:
    """Whether it is upstream's file: rules by name."""
    entries = [pair for pair in root.value if isinstance(pair, tuple)] if isinstance(root.value, list) else []
    keys = {key.value for _, value in entries for key, _ in _entries(value)}
    return not {"default", "rules"} & {key.value for key, _ in entries} and bool(keys & _UPSTREAM)


def _entries(node: Any) -> Sequence[Any]:
    value = getattr(node, "value", None)
    return [pair for pair in value if isinstance(pair, tuple)] if isinstance(value, list) else []


class _Own:
    """Reads ``{default, rules: [{name, action, protocol, from, to, ports, source_ports, direction}]}``."""

    def __init__(self, reader: YamlReader) -> None:
        self._reader = reader
        self._names: dict[str, int] = {}

    def rules(self, root: Any) -> Rules:
        fields = self._reader.mapping(root, {"default", "rules"}, "the file")
        allows = self._one_of(fields.get("default"), (DENY, ALLOW), "default") == ALLOW
        rules = tuple(self._reader.each(fields.get("rules"), self._rule))
        if len(rules) > _MOST_RULES:
            self._reader.fault(fields["rules"], f"there are {len(rules)} rules; at most {_MOST_RULES} are allowed")
        return Rules(rules, allows)

    def _rule(self, node: Any) -> Rule:
        fields = self._reader.mapping(node, _KEYS, "a rule")
        protocols = self._protocols(fields.get("protocol"))
        if "action" not in fields:
            self._reader.fault(node, "the key 'action' is missing; expected allow or deny")
        rule = Rule(
            self._name(node, fields),
            self._one_of(fields.get("action"), (ALLOW, DENY), "action") == ALLOW,
            protocols,
            self._networks(fields.get("from")),
            self._networks(fields.get("to")),
            self._ports(fields.get("source_ports"), protocols, "source_ports"),
            self._ports(fields.get("ports"), protocols, "ports"),
            direction=self._one_of(fields.get("direction"), (TO_SERVICE, TO_CLIENT, BOTH), "direction"),
        )
        versions = [{each.version for each in side} for side in (rule.sources, rule.destinations) if side]
        if len(versions) > 1 and not versions[0] & versions[1]:
            self._reader.fault(node, f"rule {rule.name!r}: no packet comes from an IPv4 and goes to an IPv6 address")
        return rule

    def _name(self, node: Any, fields: dict[str, Any]) -> str:
        name = self._reader.text(fields.get("name"))
        if not name or len(name) > _LONGEST_NAME or not name.isprintable() or name.startswith("("):
            expected = f"expected 1 to {_LONGEST_NAME} printable characters, the first of them no bracket"
            self._reader.fault(fields.get("name") or node, f"the name {name[:64]!r}: {expected}")
        elif (before := self._names.setdefault(name, self._reader.line(node))) != self._reader.line(node):
            self._reader.fault(fields["name"], f"the name {name!r} is already that of the rule in line {before}")
        return name

    def _one_of(self, node: Any, allowed: tuple[str, ...], what: str) -> str:
        if node is None:
            return allowed[0]
        value = self._reader.text(node)
        if value not in allowed:
            self._reader.fault(node, f"{what} {value!r}: expected {' or '.join(allowed)}")
        return value

    def _protocols(self, node: Any) -> tuple[int, ...]:
        if node is None:
            return ()
        value = getattr(node, "value", "")
        if isinstance(value, str) and value in _PROTOCOLS:
            return _PROTOCOLS[value]
        if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) <= _LARGEST_BYTE:
            return (int(value),)
        self._reader.fault(
            node, f"protocol {value!r}: expected {', '.join(_PROTOCOLS)} or a number up to {_LARGEST_BYTE}"
        )
        return ()

    def _networks(self, node: Any) -> tuple[Network, ...]:
        found = []
        for item in self._items(node):
            text = self._reader.text(item)
            try:
                found.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                self._reader.fault(item, f"{text!r} is not a prefix; expected one such as 10.0.0.0/24")
        return tuple(found)

    def _ports(self, node: Any, protocols: tuple[int, ...], what: str) -> tuple[Ports, ...]:
        if node is None:
            return ()
        if not protocols or not all(each in WITH_PORTS for each in protocols):
            self._reader.fault(node, f"{what} need the protocol {', '.join(WITH_PORTS.values())}")
        return tuple(port for item in self._items(node) if (port := self._port(item)) is not None)

    def _port(self, node: Any) -> Ports | None:
        text = str(getattr(node, "value", ""))
        first, _, last = text.partition("-")
        numbers = [each.strip() for each in (first, last or first)]
        if all(each.isascii() and each.isdigit() and int(each) <= _LARGEST_PORT for each in numbers):
            low, high = map(int, numbers)
            if low <= high:
                return low, high
        self._reader.fault(
            node, f"port {text!r}: expected a number up to {_LARGEST_PORT}, or a range such as 8000-8080"
        )
        return None

    def _items(self, node: Any) -> Sequence[Any]:
        """A list, or a single value."""
        if node is None:
            return []
        return list(self._reader.each(node, lambda item: item)) if isinstance(node.value, list) else [node]


class _Acl:
    """Reads upstream's file: rules by name, with the fields of VPP's ACL. What none permits is dropped."""

    def __init__(self, reader: YamlReader) -> None:
        self._reader = reader

    def rules(self, root: Any) -> Rules:
        names = [key.value for key, _ in root.value]
        fields = self._reader.mapping(root, set(map(str, names)), "the file")
        return Rules(tuple(self._rule(name, node) for name, node in fields.items()))

    def _rule(self, name: str, node: Any) -> Rule:
        fields = self._reader.mapping(node, _UPSTREAM, f"rule {name!r}")
        permit = self._number(fields, "ispermit", 2)
        protocol = self._number(fields, "proto", _LARGEST_BYTE)
        has_types = protocol in (ICMP, ICMPV6)
        first = self._range(node, fields, "srcportoricmptype")
        second = self._range(node, fields, "dstportoricmpcode")
        mask, value = self._number(fields, "tcpflagsmask", 255), self._number(fields, "tcpflagsvalue", 255)
        has_ports = protocol in WITH_PORTS
        return Rule(
            name,
            permit > 0,
            (protocol,) if protocol else (),
            self._prefix(fields.get("srcprefix")),
            self._prefix(fields.get("dstprefix")),
            first if has_ports else (),
            second if has_ports else (),
            first if has_types else (),
            second if has_types else (),
            (mask, value) if protocol == TCP and mask else None,
            is_mirrored=True,
        )

    def _number(self, fields: dict[str, Any], key: str, highest: int) -> int:
        return self._reader.number(fields.get(key), 0, highest, 0, key)

    def _range(self, node: Any, fields: dict[str, Any], key: str) -> tuple[Ports, ...]:
        """The range of a field; all of it counts as any."""
        low, high = (self._number(fields, f"{key}{end}", _LARGEST_PORT) for end in ("first", "last"))
        if low > high:
            self._reader.fault(fields.get(f"{key}first") or node, f"{key}first {low} is above {key}last {high}")
        return () if (low, high) == (0, _LARGEST_PORT) else ((low, high),)

    def _prefix(self, node: Any) -> tuple[Network, ...]:
        text = self._reader.text(node)
        if not text:
            return ()
        if (found := read_interface(text)) is None:
            self._reader.fault(node, f"{text!r} is not a prefix; expected one such as 10.0.0.0/24")
            return ()
        return (found.network,) if found.network.prefixlen else ()
