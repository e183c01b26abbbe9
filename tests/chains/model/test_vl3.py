"""Addresses and names of a vL3 network."""

from ipaddress import ip_network

import pytest

from nsm.apis.connection import Connection
from nsm.chains.model.vl3 import check_template, names_of, search_domains, whole_of


@pytest.mark.parametrize(
    ("prefix", "whole"),
    [
        ("172.16.3.0/24", "172.16.0.0/16"),
        ("10.0.0.0/12", "10.0.0.0/12"),
        ("2001:db8:0:3::/64", "2001:db8:0:3::/64"),
        ("2001:db8::3:0/112", "2001:db8::/64"),
    ],
)
def test_a_network_that_nobody_names_has_half_the_bits(prefix, whole):
    assert whole_of(ip_network(prefix)) == ip_network(whole)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ('{{ index .Labels "podName" }}.{{ .NetworkService }}.', ["alice.vl3@other"]),
        ('{{ index .Labels "podName" }}.{{ target .NetworkService }}.', ["alice.vl3"]),
        ("{{ .Labels.podName }}..{{ domain .NetworkService }}", ["alice.other"]),
        ("{{ .Labels.podName | printf `%s-x` }}.VL3", ["alice-x.vl3"]),
        ("{{ .NetworkServiceEndpointName }}.{{ .Id }}", ["server.c"]),
        ("fixed.name", ["fixed.name"]),
        ('{{ index .Labels "missing" }}.{{ target .NetworkService }}.', []),
        ("{{ .Labels.missing }}.vl3", []),
        ("{{ .Labels.blank }}.vl3", []),
    ],
)
def test_a_name_by_a_template(template, name):
    labels = {"podName": "alice", "blank": "a b"}
    service, endpoint = "vl3@other", "server"
    connection = Connection(id="c", network_service=service, network_service_endpoint_name=endpoint, labels=labels)
    wanted = [] if "@" in "".join(name) else name
    assert names_of(connection, [check_template(template)]) == wanted


def test_a_template_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"'\{\{ .Labels' is not a template; expected one such as"):
        check_template("{{ .Labels")


def test_short_names_are_searched_in_every_suffix():
    assert search_domains(["a.b.c", "d.c", "e"]) == ["b.c", "c"]
