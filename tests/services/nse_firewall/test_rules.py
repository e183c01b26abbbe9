"""The file of a firewall's rules: what it may say, and what is said about what it may not."""

import ipaddress

import pytest

from nsm.services.nse_firewall.rules import Rule, RulesError, read_rules

UPSTREAM = """
allow icmp:
  ispermit: 1
  proto: 1
  srcportoricmptypelast: 65535
  dstportoricmpcodelast: 65535
allow tcp8080:
  ispermit: 1
  proto: 6
  srcportoricmptypelast: 65535
  dstportoricmpcodefirst: 8080
  dstportoricmpcodelast: 8080
forbid tcp80:
  proto: 6
  srcprefix: 10.0.0.0/8
  srcportoricmptypelast: 65535
  dstportoricmpcodefirst: 80
  dstportoricmpcodelast: 80
"""


def test_rules_are_read_in_their_order():
    found = read_rules(
        """
default: allow
rules:
  - {name: web, action: allow, protocol: tcp, ports: [80, 8000-8080], from: 10.0.0.0/8, to: ["fd00::/8", 10.1.2.3]}
  - {name: ping, action: deny, protocol: icmp, direction: both}
  - {name: esp, action: deny, protocol: 50, direction: to-client}
""",
        "rules.yaml",
    )
    assert found.allows_others
    web, ping, esp = found.rules
    assert web == Rule(
        "web",
        True,
        (6,),
        (ipaddress.ip_network("10.0.0.0/8"),),
        (ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("10.1.2.3/32")),
        ports=((80, 80), (8000, 8080)),
    )
    assert (ping.allows, ping.protocols, ping.direction) == (False, (1, 58), "both")
    assert (esp.protocols, esp.direction) == ((50,), "to-client")


def test_upstreams_file_is_read_and_drops_what_it_does_not_permit():
    """Its rules concern both directions, with both sides swapped."""
    found = read_rules(UPSTREAM, "config.yaml")
    assert not found.allows_others
    icmp, web, http = found.rules
    assert icmp == Rule("allow icmp", True, (1,), is_mirrored=True)
    assert web == Rule("allow tcp8080", True, (6,), ports=((8080, 8080),), is_mirrored=True)
    assert (http.allows, http.sources) == (False, (ipaddress.ip_network("10.0.0.0/8"),))


RULE = "rules:\n  - name: a\n    "


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["r:1: the file is empty; expected the keys default and rules"]),
        ("rules: [", ["r:1: expected the node content, but found '<stream end>'"]),
        ("default: maybe", ["r:1: default 'maybe': expected deny or allow"]),
        ("rulez: []", ["r:1: unknown key 'rulez' in the file; there are default, rules; did you mean 'rules'?"]),
        (RULE + "action: drop", ["r:3: action 'drop': expected allow or deny"]),
        ("rules:\n  - name: a", ["r:2: the key 'action' is missing; expected allow or deny"]),
        (RULE + "action: allow\n    ports: [80]", ["r:4: ports need the protocol tcp, udp, sctp"]),
        (
            RULE + "action: allow\n    protocol: tcp\n    ports: [80, 9-8, 70000]",
            [
                "r:5: port '9-8': expected a number up to 65535, or a range such as 8000-8080",
                "r:5: port '70000': expected a number up to 65535, or a range such as 8000-8080",
            ],
        ),
        (
            RULE + "action: allow\n    protocol: tpc",
            ["r:4: protocol 'tpc': expected tcp, udp, sctp, icmp or a number up to 255"],
        ),
        (
            RULE + "action: allow\n    from: [10.0.0.0/33]",
            ["r:4: '10.0.0.0/33' is not a prefix; expected one such as 10.0.0.0/24"],
        ),
        (
            RULE + "action: allow\n    from: 10.0.0.0/8\n    to: 'fd00::/8'",
            ["r:2: rule 'a': no packet comes from an IPv4 and goes to an IPv6 address"],
        ),
        (
            RULE + "action: allow\n  - name: a\n    action: deny",
            ["r:4: the name 'a' is already that of the rule in line 2"],
        ),
        (
            "rules:\n  - action: allow",
            ["r:2: the name '': expected 1 to 100 printable characters, the first of them no bracket"],
        ),
        (
            "a:\n  ispermit: 3\n  proto: 6",
            ["r:2: ispermit '3': expected a number from 0 to 2"],
        ),
        (
            "a:\n  proto: 6\n  dstportoricmpcodefirst: 90\n  dstportoricmpcodelast: 80",
            ["r:3: dstportoricmpcodefirst 90 is above dstportoricmpcodelast 80"],
        ),
        ("a:\n  proto: 6\n  srcprefix: here", ["r:3: 'here' is not a prefix; expected one such as 10.0.0.0/24"]),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(text, faults):
    with pytest.raises(RulesError) as caught:
        read_rules(text, "r")
    assert str(caught.value).splitlines() == faults
