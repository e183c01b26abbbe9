"""Rules and tables as they are written, read by the netlink library, and as they are read back."""

import ipaddress
import socket

import pytest
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nsm.chains.netlink import rules
from nsm.chains.netlink.rules import Rule, Selector, TableRoute
from tests.chains.netlink.reading import CREATE_EXCL, CREATE_REPLACE, REQUEST_ACK, read

TABLE = 0x4E530007
NETWORK, ADDRESS = ipaddress.ip_network, ipaddress.ip_address


@pytest.mark.parametrize(
    ("selector", "family", "length", "attributes"),
    [
        (Selector(4), socket.AF_INET, 0, {}),
        (Selector(4, NETWORK("10.0.0.1/32")), socket.AF_INET, 32, {"FRA_SRC": "10.0.0.1"}),
        (
            Selector(6, NETWORK("fd00::/64"), 17, (80, 80), (1024, 65535)),
            socket.AF_INET6,
            64,
            {"FRA_SRC": "fd00::", "FRA_IP_PROTO": 17, "FRA_DPORT_RANGE": "80:80", "FRA_SPORT_RANGE": "1024:65535"},
        ),
        (Selector(4, protocol=6, dst_ports=(1, 2)), socket.AF_INET, 0, {"FRA_IP_PROTO": 6, "FRA_DPORT_RANGE": "1:2"}),
    ],
    ids=str,
)
def test_a_rule_has_what_its_selector_looks_at_and_no_more(selector, family, length, attributes):
    rule = Rule(selector, TABLE, 12345)
    for message, command, flags in ((rules.add_rule(rule), 32, CREATE_EXCL), (rules.remove_rule(rule), 33, 0)):
        found, has = read(fibmsg, message)
        assert (found["header"]["type"], found["header"]["flags"]) == (command, REQUEST_ACK | flags)
        assert (found["family"], found["src_len"], found["dst_len"], found["tos"]) == (family, length, 0, 0)
        assert (found["table"], found["action"], found["flags"]) == (0, 1, 0)
        assert has == {"FRA_TABLE": TABLE, "FRA_PRIORITY": 12345, "FRA_PROTOCOL": 110, **attributes}
    assert rules.read_rule(rules.add_rule(rule).data) == rule


@pytest.mark.parametrize(
    ("prefix", "via", "scope", "flags"),
    [
        ("0.0.0.0/0", "10.0.0.0", 0, 4),
        ("10.0.0.0/32", None, 253, 0),
        ("::/0", "fd00::", 0, 4),
        ("fd01::/64", None, 0, 0),
    ],
)
def test_routes_go_into_a_table_whose_number_has_32_bits(prefix, via, scope, flags):
    route = TableRoute(TABLE, 9, NETWORK(prefix), ADDRESS(via) if via else None)
    for message, command, asked in (
        (rules.add_table_route(route), 24, CREATE_REPLACE),
        (rules.add_table_route(route, exclusive=True), 24, CREATE_EXCL),
        (rules.remove_table_route(route), 25, 0),
    ):
        found, has = read(rtmsg, message)
        assert (found["header"]["type"], found["header"]["flags"]) == (command, REQUEST_ACK | asked)
        assert (found["dst_len"], found["scope"], found["flags"]) == (route.prefix.prefixlen, scope, flags)
        assert (found["table"], found["proto"], found["type"]) == (0, 110, 1)
        wanted = {"RTA_TABLE": TABLE, "RTA_DST": str(route.prefix.network_address), "RTA_OIF": 9}
        assert has == {**wanted, **({"RTA_GATEWAY": via} if via else {})}
        assert rules.read_table_route(message.data) == route


@pytest.mark.parametrize(("version", "family"), [(4, socket.AF_INET), (6, socket.AF_INET6)])
def test_all_rules_and_routes_of_a_family_are_asked_for(version, family):
    for kind, message, command in (
        (fibmsg, rules.ask_for_rules(version), 34),
        (rtmsg, rules.ask_for_table_routes(version), 26),
    ):
        found, has = read(kind, message, acknowledged=False)
        assert (found["header"]["type"], found["header"]["flags"], found["family"], has) == (command, 0x301, family, {})


def test_what_others_made_is_not_ours():
    ours = rules.add_rule(Rule(Selector(4), TABLE, 1)).data
    kernels = ours.replace(bytes([5, 0, 21, 0, 110]), bytes([5, 0, 21, 0, 2]))
    assert kernels != ours
    assert rules.read_rule(kernels) is None
    route = bytearray(rules.add_table_route(TableRoute(TABLE, 9, NETWORK("10.0.0.0/8"), None)).data)
    route[16 + 5] = 4  # RTPROT_STATIC
    assert rules.read_table_route(bytes(route)) is None


def test_a_selector_reads_as_ip_rule_writes_it():
    assert str(Selector(4)) == "from all"
    full = Selector(4, NETWORK("10.0.0.1/32"), 6, (80, 90), (5, 5))
    assert str(full) == "from 10.0.0.1/32 ipproto 6 sport 5 dport 80-90"
