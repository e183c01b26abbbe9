"""The metrics of a firewall."""

from nsm.services.nse_firewall.figures import families
from nsm.services.nse_firewall.firewall import Count


def test_each_rule_has_its_packets_and_bytes():
    found = families([Count("web", 3, 180), Count("(others)", 1, 60)])
    assert {family.name: dict(family.samples) for family in found} == {
        "nsm_firewall_packets": {("web",): 3, ("(others)",): 1},
        "nsm_firewall_bytes": {("web",): 180, ("(others)",): 60},
    }
