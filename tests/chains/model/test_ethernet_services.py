"""Services with a MAC and a VLAN, as upstream writes them."""

import pytest

from nsm.chains.model.ethernet_services import EthernetService, parse_ethernet_services

MAC = "0a:55:44:33:22:11"


def test_services_have_a_mac_and_maybe_a_vlan():
    assert parse_ethernet_services(f"ping: {{ addr: {MAC}; vlan: 100 }}, pong {{ addr: {MAC.upper()} }}") == (
        EthernetService("ping", MAC, 100),
        EthernetService("pong", MAC, 0),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one such as 'pingpong: { addr: 0a:55:44:33:22:11; vlan: 100 }'"),
        ("ping", "'ping' is not a service"),
        ("ping: { vlan: 1 }", "service 'ping': addr is missing"),
        ("ping: { addr: 0a:55 }", "service 'ping': addr is not"),
        (f"ping: {{ addr: {MAC}; vlan: 4095 }}", "'4095' is not a VLAN id"),
        (f"ping: {{ addr: {MAC}; vlan: x }}", "'x' is not a VLAN id"),
        (f"ping: {{ addr: {MAC}; addr: {MAC} }}", "addr is given twice"),
        (f"ping: {{ mac: {MAC} }}", "unknown field 'mac'; expected"),
        (f"ping: {{ addr: {MAC} }}, ping: {{ addr: {MAC} }}", "service 'ping' is given twice"),
    ],
)
def test_a_fault_is_named_with_what_to_write(text, told):
    with pytest.raises(ValueError, match=told):
        parse_ethernet_services(text)
