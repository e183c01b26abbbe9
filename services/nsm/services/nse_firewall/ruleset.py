"""Turns the rules of a firewall into a transaction of nftables.

There are two tables: `bridge` for wires of Ethernet, `inet` for wires of IP. In each, what arrives from a client passes
one chain, and what arrives from the service another. All interfaces of a side have names that begin alike, so a new
connection changes nothing here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from nsm.chains.elements.join_sides import CLIENT_SIDE, SERVER_SIDE
from nsm.services.nft import Command

from .rules import BOTH, ICMP, ICMPV6, TCP, TO_CLIENT, TO_SERVICE, WITH_PORTS, Network, Ports, Rule, Rules

TABLE = "nsm_firewall"
BRIDGE, INET = "bridge", "inet"
ANSWERS, OTHERS = "answers", "others"
"""Counters besides those of the rules: packets of connections that were allowed, and what no rule concerns."""
_CHAINS = {TO_SERVICE: "to_service", TO_CLIENT: "to_client"}
_SIDES = {TO_SERVICE: f"{CLIENT_SIDE}*", TO_CLIENT: f"{SERVER_SIDE}*"}
_PRIORITIES = {BRIDGE: -200, INET: 0}
"""Of a filter in each family: at a bridge, br_netfilter is at 0 and skips what follows it there."""
_OTHER = {TO_SERVICE: TO_CLIENT, TO_CLIENT: TO_SERVICE}
_FIN, _SYN, _RST, _ACK = 0x1, 0x2, 0x4, 0x10
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_LONGEST_COMMENT = 120
_ICMP_ERRORS = ["destination-unreachable", "time-exceeded", "parameter-problem"]

Expression = dict[str, Any]


def transaction(
    rules: Rules, *, tracked: Collection[str], former: Collection[str] = (), is_first: bool = False
) -> list[Command]:
    """The commands that put `rules` in force, in place of all others, at once.

    `tracked` are the tables in which the kernel tracks connections. In others, an allowed connection's answers are
    recognized by their addresses, ports and TCP flags. `former` are the counters of the rules before; those of rules
    that stay keep their numbers, unless `is_first`.
    """
    return [command for family in (BRIDGE, INET) for command in _table(rules, family, tracked, former, is_first)]


def counter_of(name: str) -> str:
    """The counter of a rule."""
    plain = _NOT_PLAIN.sub("_", name)
    return f"rule_{plain}" if plain == name else f"rule_{plain}_{blake2b(name.encode(), digest_size=4).hexdigest()}"


def counters_of(rules: Rules) -> dict[str, str]:
    """The name of each rule by its counter."""
    return {counter_of(rule.name): rule.name for rule in rules.rules}


def _table(
    rules: Rules, family: str, tracked: Collection[str], former: Collection[str], is_first: bool
) -> Iterator[Command]:
    there = {"family": family, "table": TABLE}
    table = {"add": {"table": {"family": family, "name": TABLE}}}
    yield table
    if is_first:
        yield {"delete": {"table": {"family": family, "name": TABLE}}}
        yield table
    for hook in ("forward", "input"):
        base = {**there, "name": hook, "type": "filter", "hook": hook, "prio": _PRIORITIES[family], "policy": "accept"}
        yield {"add": {"chain": base}}
        yield {"flush": {"chain": {**there, "name": hook}}}
    for name in _CHAINS.values():
        yield {"add": {"chain": {**there, "name": name}}}
        yield {"flush": {"chain": {**there, "name": name}}}
    counters = counters_of(rules)
    for name in (*counters, ANSWERS, OTHERS):
        yield {"add": {"counter": {**there, "name": name}}}
    for name in former:
        if name not in counters and not is_first:
            yield {"delete": {"counter": {**there, "name": name}}}

    def rule(chain: str, *expressions: Expression, comment: str = "") -> Command:
        told = {"comment": comment[:_LONGEST_COMMENT]} if comment else {}
        return {"add": {"rule": {**there, "chain": chain, "expr": list(expressions), **told}}}

    for direction, side in _SIDES.items():
        arrives = _match(_meta("iifname"), side)
        yield rule("input", arrives, {"drop": None})  # nobody reaches this endpoint itself by a wire
        yield from (rule(_CHAINS[direction], *each) for each in _always(family, is_tracked=family in tracked))
        for each in rules.rules:
            for expressions in _of_rule(each, direction, is_tracked=family in tracked):
                counted = {"counter": counter_of(each.name)}
                verdict = {"accept" if each.allows else "drop": None}
                yield rule(_CHAINS[direction], *expressions, counted, verdict, comment=each.name)
        yield rule(_CHAINS[direction], {"counter": OTHERS}, {"accept" if rules.allows_others else "drop": None})
        yield rule("forward", arrives, {"jump": {"target": _CHAINS[direction]}})  # last: its chain is complete


def _always(family: str, *, is_tracked: bool) -> Iterator[list[Expression]]:
    """What passes whatever the rules are: what makes a wire usable, and answers."""
    if family == BRIDGE:
        yield [_match(_meta("protocol"), "arp"), {"accept": None}]
        yield [
            _match(_field("icmpv6", "type"), {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]}),
            {"accept": None},
        ]
    answers: list[Expression] = [{"counter": ANSWERS}, {"accept": None}]
    if is_tracked:
        state = {"ct": {"key": "state"}}
        yield [_match(state, ["established", "related"], "in"), *answers]
        yield [_match(state, "invalid", "in"), {"drop": None}]
        return
    yield [_match(_field("icmp", "type"), {"set": _ICMP_ERRORS}), *answers]
    yield [_match(_field("icmpv6", "type"), {"set": [*_ICMP_ERRORS, "packet-too-big"]}), *answers]


def _of_rule(rule: Rule, direction: str, *, is_tracked: bool) -> Iterator[list[Expression]]:
    """What the rule concerns in one direction, each a list of conditions."""
    if rule.direction in (direction, BOTH):
        yield from _conditions(rule)
    if rule.is_mirrored and rule.direction == _OTHER[direction]:
        yield from _conditions(_swapped(rule))
    elif rule.allows and not is_tracked and rule.direction in (_OTHER[direction], BOTH):
        yield from _answers(_swapped(rule))


def _answers(rule: Rule) -> Iterator[list[Expression]]:
    """Answers by what they look like: no new connections, and no requests for an echo."""
    special = {
        TCP: [_match({"&": [_field("tcp", "flags"), _FIN | _SYN | _RST | _ACK]}, _SYN, "!=")],
        ICMP: [_match(_field("icmp", "type"), "echo-request", "!=")],
        ICMPV6: [_match(_field("icmpv6", "type"), "echo-request", "!=")],
    }
    for protocol in rule.protocols or tuple(special):
        for each in _conditions(replace(rule, protocols=(protocol,))):
            yield [*each, *special.get(protocol, [])]
    if not rule.protocols:
        others = _match(_meta("l4proto"), {"set": list(special)}, "!=")
        yield from ([others, *each] for each in _conditions(rule))


def _conditions(rule: Rule) -> Iterator[list[Expression]]:
    """The rule's conditions: one list for each version of IP that it names addresses of, or a single one."""
    sides = [side for side in (rule.sources, rule.destinations) if side]
    versions: Sequence[int | None] = [
        version for version in (4, 6) if all(any(each.version == version for each in side) for side in sides)
    ]
    for version in versions if sides else [None]:
        found: list[Expression] = []
        if version is not None:
            protocol = "ip" if version == 4 else "ip6"
            for field, side in (("saddr", rule.sources), ("daddr", rule.destinations)):
                if side:
                    found.append(_match(_field(protocol, field), {"set": _networks(side, version)}))
        yield [*found, *_of_transport(rule)]


def _of_transport(rule: Rule) -> Iterator[Expression]:
    if rule.protocols:
        yield _match(_meta("l4proto"), {"set": list(rule.protocols)})
    name = WITH_PORTS.get(rule.protocols[0], "") if rule.protocols else ""
    for field, ports in (("sport", rule.source_ports), ("dport", rule.ports)):
        if ports:
            yield _match(_field(name, field), {"set": _ranges(ports)})
    icmp = {ICMP: "icmp", ICMPV6: "icmpv6"}.get(rule.protocols[0], "") if rule.protocols else ""
    for field, values in (("type", rule.icmp_types), ("code", rule.icmp_codes)):
        if values and icmp:
            yield _match(_field(icmp, field), {"set": [_range((low, min(high, 255))) for low, high in values]})
    if rule.tcp_flags is not None:
        mask, value = rule.tcp_flags
        yield _match({"&": [_field("tcp", "flags"), mask]}, value)


def _swapped(rule: Rule) -> Rule:
    """The rule for packets in the other direction."""
    return replace(
        rule,
        sources=rule.destinations,
        destinations=rule.sources,
        source_ports=rule.ports,
        ports=rule.source_ports,
    )


def _match(left: Any, right: Any, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _field(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _networks(networks: Iterable[Network], version: int) -> list[Any]:
    """Those of a version, without what others contain: a set must not overlap."""
    same = [each for each in networks if each.version == version]
    return [
        {"prefix": {"addr": str(each.network_address), "len": each.prefixlen}}
        for each in ipaddress.collapse_addresses(same)  # type: ignore[type-var]  # they are of one version
    ]


def _ranges(ports: Iterable[Ports]) -> list[Any]:
    """The same for ports."""
    joined: list[Ports] = []
    for low, high in sorted(ports):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return [_range(each) for each in joined]


def _range(ports: Ports) -> Any:
    return ports[0] if ports[0] == ports[1] else {"range": list(ports)}
