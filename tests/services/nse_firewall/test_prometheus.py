"""The metrics of a firewall."""

from nsm.services.nse_firewall.firewall import Count
from nsm.services.nse_firewall.prometheus import families


def test_each_rule_has_its_packets_and_bytes():
    found = families([Count("web", 3, 180), Count("(others)", 1, 60)], "mesh_")
    samples = {(each.name, each.labels["rule"]): each.value for family in found for each in family.samples}
    assert samples == {
        ("mesh_firewall_packets_total", "web"): 3,
        ("mesh_firewall_packets_total", "(others)"): 1,
        ("mesh_firewall_bytes_total", "web"): 180,
        ("mesh_firewall_bytes_total", "(others)"): 60,
    }
