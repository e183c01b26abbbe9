"""Who may register for which network service, and where, as a configuration says it."""

import ipaddress

import pytest

from nsm.chains.policy import Hosts, IdPatterns, Registration

ONE, OTHER = "spiffe://a.org/one", "spiffe://b.org/other"


@pytest.mark.parametrize(
    ("rules", "spiffe_id", "services", "refused"),
    [
        ("", ONE, ["svc"], None),
        ("", ONE, [], None),
        ("svc=spiffe://a.org/*", ONE, ["svc"], None),
        ("svc=spiffe://a.org/*", OTHER, ["svc"], "svc"),
        ("svc=spiffe://a.org/*", OTHER, ["else"], None),
        ("svc=spiffe://a.org/*", OTHER, ["else", "svc"], "svc"),
        ("svc=spiffe://a.org/*|spiffe://b.org/other", OTHER, ["svc"], None),
        ("svc=", ONE, ["svc"], "svc"),
        ("*=spiffe://a.org/**", OTHER, ["svc"], "svc"),
        ("*=spiffe://a.org/**", OTHER, [], "*"),
        ("*=spiffe://a.org/**,svc=spiffe://b.org/*", OTHER, ["svc"], None),
        ("*=spiffe://a.org/**,svc=spiffe://b.org/*", ONE, ["svc"], "svc"),
        ("*=", ONE, ["svc"], "svc"),
        (" svc = spiffe://a.org/one | /two , ", ONE, ["svc"], None),
        ("svc=/one", ONE, ["svc"], None),
        ("svc=/one", "spiffe://b.org/one", ["svc"], "svc"),
        ("svc=spiffe://*/**", OTHER, ["svc"], None),
    ],
)
def test_a_rule_says_who_may_register_for_a_service(rules, spiffe_id, services, refused):
    assert Registration.parse(rules).within("a.org").refuses(spiffe_id, services) == refused


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ("svc", "'svc' is not a rule; expected SERVICE=PATTERN"),
        ("=spiffe://a.org/one", "is not a rule"),
        ("svc=/one,svc=/two", "'svc' has two rules; put | between"),
        ("svc=one", "rule of 'svc': 'one' is not a pattern of SPIFFE IDs"),
        ("svc=/**/x", r"rule of 'svc': .* comes last"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named(rules, fault):
    with pytest.raises(ValueError, match=fault.replace("|", r"\|")):
        Registration.parse(rules)


def test_a_rule_of_ones_own_takes_the_place_of_the_usual_one():
    usual = IdPatterns(["/forwarder"])
    for written, allowed in (("", "spiffe://a.org/forwarder"), ("forwarder=/mine", "spiffe://a.org/mine")):
        rules = Registration.parse(written).unless_listed("forwarder", usual).within("a.org")
        assert rules.refuses(allowed, ["forwarder"]) is None
        assert rules.refuses(ONE, ["forwarder"]) == "forwarder"
        assert rules.refuses("spiffe://b.org/forwarder", ["forwarder"]) == "forwarder"


def host(text):
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return text


@pytest.mark.parametrize(
    ("hosts", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "fd00::1", "10.1.2.3.example.org"]),
        ("10.0.0.1,fd00::/8", ["10.0.0.1", "fd00::1"], ["10.0.0.2"]),
        ("gw.example.org", ["gw.example.org", "GW.example.org"], ["a.gw.example.org", "example.org", "10.0.0.1"]),
        ("*.example.org", ["a.example.org", "a.b.example.org"], ["example.org", "evilexample.org"]),
        ("", [], ["10.0.0.1", "gw"]),
    ],
)
def test_hosts_are_prefixes_and_names(hosts, inside, outside):
    known = Hosts.parse(hosts)
    assert [each for each in [*inside, *outside] if known.have(host(each))] == inside


@pytest.mark.parametrize("hosts", ["10.0.0.1/8", "10.0.0.0/33", "tcp://a:1", "a b", "*", "10.1", "*.*.org", "a,-b"])
def test_what_is_no_host_is_named(hosts):
    with pytest.raises(ValueError, match="is not a host"):
        Hosts.parse(hosts)
