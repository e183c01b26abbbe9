"""The files and numbers that docs/addresses.md shows."""

import ipaddress

import yaml

from nsm.chains.config import address_groups
from nsm.chains.elements.excluded_prefixes import prefixes_of
from nsm.chains.elements.policy_routing import policies_of
from nsm.chains.forwarding.make_wire import ACCEPT_RA
from nsm.chains.model.nsurl import parse_groups
from nsm.chains.netlink import metric_of
from nsm.forwarder_kernel import default_routes, policy_tables
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "addresses.md"


def test_the_files_are_read_as_the_page_says():
    prefixes, groups, policies = (block.text for block in blocks(PAGE, "text"))
    assert prefixes_of(yaml.safe_load(prefixes)) == ("10.96.0.0/12", "10.244.0.0/16")
    assert [len(group) for group in parse_groups(groups.strip().partition("=")[2])] == [2, 1]
    first, second = policies_of(yaml.safe_load(policies))
    assert (first.from_, first.proto, first.dst_port, second.dst_port) == ("172.16.2.201/32", "17", "6666-6670", "53")
    assert [route.next_hop for route in second.routes] == ["", "172.16.2.254"]


def test_the_examples_of_prefixes_can_be_given():
    text = PAGE.read_text()
    for value in ("10.0.0.0/24,fd00::/64", "[10.0.0.0/31,10.1.0.0/24],[fd00::/64]"):
        assert f"`{value}`" in text
        assert len(address_groups(value)) == 2


def test_the_numbers_are_those_of_the_code():
    text = PAGE.read_text()
    assert f"{policy_tables.FIRST_TABLE} to {policy_tables.LAST_TABLE}" in text
    assert f"{policy_tables.FIRST_TABLE:#x} to {policy_tables.LAST_TABLE:#x}" in text
    assert (
        f"{policy_tables.FIRST_PRIORITY} to {policy_tables.LAST_PRIORITY}; {default_routes.FIRST_PRIORITY} to" in text
    )
    assert f"the interface's index plus {default_routes.FIRST_TABLE}" in text
    assert f"a metric of {metric_of(ipaddress.ip_network('0.0.0.0/0'), None)}" in text
    assert f"?{ACCEPT_RA}=true" in text
