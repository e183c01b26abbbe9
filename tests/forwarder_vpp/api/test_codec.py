"""Values of Python in the fields of messages."""

import ipaddress
import random

import pytest

from nsm.forwarder_vpp.api import BadField, Malformed, known


def both_ways(name, **fields):
    """What arrives of fields that are sent."""
    message = known().first(name)
    return message.unpack(message.pack(7, 1, 2, fields))


@pytest.mark.parametrize("given", ["192.0.2.1", ipaddress.ip_address("192.0.2.1"), "2001:db8::1"])
def test_an_address(given):
    assert both_ways("arping", address=given).address == ipaddress.ip_address(str(given))


@pytest.mark.parametrize("given", ["192.0.2.1/24", "2001:db8::1/64", ipaddress.ip_network("192.0.2.0/24")])
def test_a_prefix(given):
    assert both_ways("sw_interface_add_del_address", prefix=given).prefix == ipaddress.ip_interface(str(given))


def test_a_mac_address_as_text_or_bytes():
    given = "02:fe:00:00:00:01"
    for value in (given, bytes.fromhex(given.replace(":", ""))):
        assert both_ways("sw_interface_set_mac_address", mac_address=value).mac_address == given


def test_a_value_without_a_name_is_a_number():
    assert both_ways("memif_create_v2", mode="MEMIF_MODE_API_IP").mode == "MEMIF_MODE_API_IP"
    assert both_ways("memif_create_v2", mode=77).mode == 77


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ([], set()),
        ("TAP_API_FLAG_TUN", {"TAP_API_FLAG_TUN"}),
        (["TAP_API_FLAG_TUN", "TAP_API_FLAG_GSO"], {"TAP_API_FLAG_TUN", "TAP_API_FLAG_GSO"}),
        (0x11, {"TAP_API_FLAG_TUN", "TAP_API_FLAG_GSO"}),
        (1 << 31, {1 << 31}),
    ],
)
def test_flags(given, arrives):
    assert both_ways("tap_create_v3", tap_flags=given).tap_flags == arrives


def test_text_that_is_not_ascii_and_bytes_that_are_no_text():
    assert both_ways("sw_interface_tag_add_del", tag="Zürich").tag == "Zürich"
    assert both_ways("cli_inband", cmd="show \udcff").cmd == "show \udcff"
    assert both_ways("cli_inband", cmd="").cmd == ""


def test_a_list_has_its_length_filled_in():
    rule = {"src_prefix": "0.0.0.0/0", "dst_prefix": "192.0.2.1/32"}
    found = both_ways("acl_add_replace", r=[rule, rule])
    assert (found.count, [one.dst_prefix.ip.packed[3] for one in found.r]) == (2, [1, 1])


def test_a_next_hop_is_an_address_in_a_union():
    path = {"sw_if_index": 1, "nh": {"address": ipaddress.ip_address("192.0.2.9")}}
    found = both_ways("l3xc_update", l3xc={"sw_if_index": 2, "n_paths": 1, "paths": [path]})
    assert found.l3xc.paths[0].nh.address == bytes([192, 0, 2, 9]) + bytes(12)


def test_a_field_of_a_structure_is_named_with_it():
    with pytest.raises(BadField, match="wireguard_peer has no field publickey; it has peer_index, public_key"):
        both_ways("wireguard_peer_add", peer={"publickey": b""})


def test_a_message_that_is_cut_or_too_long_is_malformed():
    for name, checksum in [(one, checksum) for one in known() for checksum in known().variants(one)]:
        message = known().message(name, checksum)
        data = message.pack(1, 2, 3, {})
        assert message.unpack(data) == message.unpack(data)
        for wrong in (data[:-1], data + b"\0", data[:2], b""):
            with pytest.raises(Malformed, match=name):
                message.unpack(wrong)


def test_any_bytes_are_a_message_or_malformed():
    chance = random.Random(3)
    for name in known():
        message = known().first(name)
        data = bytearray(message.pack(1, 2, 3, {}))
        for _ in range(10):
            data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                message.unpack(bytes(data))
            except Malformed:
                continue


def test_no_field_has_the_name_of_an_option_of_a_call():
    fields = {
        field for name in known() for one in known().variants(name) for field in known().message(name, one).fields
    }
    assert not fields & {"timeout", "fine", "late"}
