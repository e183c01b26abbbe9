"""Lists of services in VLANs, as upstream writes them."""

import pytest

from nsm.chains.model.vlans import VlanService, parse_vlan_services


@pytest.mark.parametrize(
    ("text", "services"),
    [
        ("finance { vlan: 100; via: gw-1 }", [VlanService("finance", "gw-1", 100)]),
        (
            "finance-bridge { domain: service-domain.2; vlan: 100; via: gw-1 }",
            [VlanService("finance-bridge", "gw-1", 100)],
        ),
        ("a{via:x}", [VlanService("a", "x", 0)]),
        ("a { via: service.domain; vlan: 4094; }", [VlanService("a", "service.domain", 4094)]),
        ("a { via: x }, b@far { via: y; vlan: 2 } ,", [VlanService("a", "x"), VlanService("b@far", "y", 2)]),
        (
            "a { vlan: 7; labels: tier=gold&app=; via: x }",
            [VlanService("a", "x", 7, {"tier": "gold", "app": ""})],
        ),
    ],
)
def test_services_are_read(text, services):
    assert list(parse_vlan_services(text)) == services
    assert list(parse_vlan_services(", ".join(map(str, services)))) == services


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one such as 'finance { vlan: 100; via: gw-1 }'"),
        ("nonsense", "'nonsense' is not a service; expected one such as 'finance { vlan: 100; via: gw-1 }'"),
        ("a { via: x } b { via: y }", "'a { via: x } b { via: y }' is not a service"),
        ("a { via: x }, { via: y }", "'{ via: y }' is not a service"),
        ("a { via: x", "'a { via: x' is not a service"),
        ("a { vlan: 100 }", "service 'a': via is missing; it names the uplink, as in via: gw-1"),
        ("a { vlan: 100; via: }", "service 'a': via is missing"),
        ("a { vlan: 4095; via: x }", "service 'a': 4095 is not a VLAN id; expected 1 to 4094, or 0 for frames without"),
        ("a { vlan: -1; via: x }", "service 'a': '-1' is not a VLAN id; expected 1 to 4094"),
        ("a { vlan: ten; via: x }", "service 'a': 'ten' is not a VLAN id"),
        (
            "a { via: x; colour: red }",
            "service 'a': unknown field 'colour: red'; expected vlan: …, via: …, labels: …, domain: …",
        ),
        ("a { via }", "service 'a': unknown field 'via'; expected vlan: …"),
        ("a { via: x; via: y }", "service 'a': via is given twice"),
        ("a { via: x }, b { via: x }, a { via: y }", "service 'a' is given twice"),
        ("a { via: x; labels: red }", "service 'a': 'red' is not a label; expected labels: key=value&key=value"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(text, told):
    with pytest.raises(ValueError) as caught:
        parse_vlan_services(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
