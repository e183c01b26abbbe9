"""What is written to the kernel, as the netlink library reads it."""

import base64
import ipaddress
import socket
import struct

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nsm.chains.netlink import encoding, messages, wireguard
from tests.chains.netlink.reading import CREATE_EXCL, CREATE_REPLACE, REQUEST_ACK, read

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def test_a_veth_pair_is_made_with_both_ends_in_their_namespaces():
    """Names of any length up to 15 bytes: attributes are padded."""
    for name in ("n", "nsm-1", "fifteen-bytes-x"):
        one, other = messages.LinkEnd(name, 1001, MAC, 5), messages.LinkEnd(f"{name[:14]}e", 1002, OTHER_MAC, 6)
        found, attributes = read(ifinfmsg, messages.create_veth(one, other, mtu=9000, arp=False))
        assert (found["header"]["type"], found["header"]["flags"]) == (16, REQUEST_ACK | CREATE_EXCL)
        assert (found["index"], found["flags"], found["change"]) == (1001, 0x80, 0x80)
        linkinfo = dict(attributes.pop("IFLA_LINKINFO")["attrs"])
        assert linkinfo["IFLA_INFO_KIND"] == "veth"
        assert attributes == of_end(name, 5, MAC)
        peer = dict(linkinfo["IFLA_INFO_DATA"]["attrs"])["VETH_INFO_PEER"]
        assert (peer["index"], peer["flags"], peer["change"]) == (1002, 0x80, 0x80)
        assert dict(peer["attrs"]) == of_end(f"{name[:14]}e", 6, OTHER_MAC)


def of_end(name, namespace, mac):
    return {"IFLA_IFNAME": name, "IFLA_NET_NS_FD": namespace, "IFLA_ADDRESS": mac, "IFLA_MTU": 9000}


def test_a_pair_for_frames_resolves_addresses_and_has_the_kernels_mtu_unless_one_is_given():
    one, other = messages.LinkEnd("a", 1, MAC, 5), messages.LinkEnd("b", 2, OTHER_MAC, 6)
    found, attributes = read(ifinfmsg, messages.create_veth(one, other, mtu=0, arp=True))
    assert (found["flags"], found["change"]) == (0, 0)
    assert "IFLA_MTU" not in attributes


@pytest.mark.parametrize(
    ("message", "command", "attributes"),
    [
        (messages.set_mtu(9, 1400), 19, {"IFLA_MTU": 1400}),
        (messages.set_group(9, 77), 19, {"IFLA_GROUP": 77}),
        (messages.delete_link(9), 17, {}),
    ],
    ids=lambda value: getattr(value, "about", ""),
)
def test_links_are_changed_by_their_index(message, command, attributes):
    found, has = read(ifinfmsg, message)
    assert (found["header"]["type"], found["index"], found["flags"], found["change"]) == (command, 9, 0, 0)
    assert has == attributes


def test_a_link_is_set_up_with_its_owner():
    found, attributes = read(ifinfmsg, messages.set_up(9, "nsm forwarder ü"))
    assert (found["flags"], found["change"]) == (1, 1)
    assert attributes == {"IFLA_IFALIAS": "nsm forwarder ü"}


def test_a_link_is_asked_for_by_name_and_a_group_is_deleted_as_one():
    assert read(ifinfmsg, messages.get_link(name="nsm-1"), acknowledged=False)[1] == {"IFLA_IFNAME": "nsm-1"}
    found, attributes = read(ifinfmsg, messages.delete_group(77))
    assert (found["header"]["type"], found["index"], attributes) == (17, 0, {"IFLA_GROUP": 77})


@pytest.mark.parametrize("text", ["10.0.0.1/32", "192.168.4.5/24", "fd00::1/128", "fd00:1::2/64"])
def test_addresses_are_added_and_removed(text):
    """IPv6 ones are usable at once: no duplicate address detection."""
    address = ipaddress.ip_interface(text)
    for message, command, flags in (
        (messages.add_address(9, address), 20, CREATE_REPLACE),
        (messages.remove_address(9, address), 21, 0),
    ):
        found, attributes = read(ifaddrmsg, message)
        assert (found["header"]["type"], found["header"]["flags"]) == (command, REQUEST_ACK | flags)
        assert (found["index"], found["prefixlen"]) == (9, address.network.prefixlen)
        assert attributes["IFA_ADDRESS"] == str(address.ip)
        assert attributes.get("IFA_LOCAL", "") == (str(address.ip) if address.version == 4 else "")
        assert found["flags"] == (0x82 if address.version == 6 else 0)


@pytest.mark.parametrize(
    ("prefix", "via", "scope", "flags"),
    [
        ("10.0.0.0/32", None, 253, 0),
        ("10.1.0.0/16", "10.0.0.0", 0, 4),
        ("fd00::/128", None, 0, 0),
        ("fd01::/64", "fd00::", 0, 4),
        ("0.0.0.0/0", "10.0.0.0", 0, 4),
        ("::/0", "fd00::", 0, 4),
    ],
)
def test_routes_go_to_the_link_or_to_a_next_hop_on_it(prefix, via, scope, flags):
    """Beside routes of others to the same prefix, and before them; default routes behind them."""
    network, hop = ipaddress.ip_network(prefix), ipaddress.ip_address(via) if via else None
    for message, command in ((messages.add_route(9, network, hop), 24), (messages.remove_route(9, network, hop), 25)):
        found, attributes = read(rtmsg, message)
        assert (found["header"]["type"], found["dst_len"], found["scope"]) == (command, network.prefixlen, scope)
        assert (found["table"], found["proto"], found["type"], found["flags"]) == (254, 110, 1, flags)
        wanted = {"RTA_DST": str(network.network_address), "RTA_OIF": 9, **({"RTA_GATEWAY": via} if via else {})}
        metric = 2_000_000_000 if not network.prefixlen else {4: 0, 6: 512}[network.version]
        assert attributes == wanted | ({"RTA_PRIORITY": metric} if metric else {})
    assert read(rtmsg, messages.remove_route(9, network, hop, 1024))[1]["RTA_PRIORITY"] == 1024
    ordered = metric if network.version == 6 and hop is None else metric + 3
    assert read(rtmsg, messages.add_route(9, network, hop, order=3))[1]["RTA_PRIORITY"] == ordered


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_neighbors_are_permanent_or_known_for_now(address):
    parsed = ipaddress.ip_address(address)
    for permanent, state in ((True, 0x80), (False, 0x02)):
        found, attributes = read(ndmsg, messages.add_neighbor(9, parsed, MAC, permanent=permanent))
        assert (found["header"]["type"], found["ifindex"], found["state"]) == (28, 9, state)
        assert attributes == {"NDA_DST": address, "NDA_LLADDR": MAC}
    found, attributes = read(ndmsg, messages.remove_neighbor(9, parsed))
    assert (found["header"]["type"], attributes) == (29, {"NDA_DST": address})


@pytest.mark.parametrize(("local", "remote", "family"), [("172.16.1.1", "172.16.1.2", ""), ("fd00::1", "fd00::2", "6")])
def test_a_vxlan_device_knows_its_peer_and_learns_nothing(local, remote, family):
    end = messages.LinkEnd("nsm-1", 1001, MAC, 5)
    ends = ipaddress.ip_address(local), 4790, ipaddress.ip_address(remote)
    found, attributes = read(ifinfmsg, messages.create_vxlan(end, 77, *ends, mtu=9000))
    assert (found["header"]["type"], found["header"]["flags"]) == (16, REQUEST_ACK | CREATE_EXCL)
    assert (found["index"], found["flags"]) == (1001, 0)
    info = dict(attributes.pop("IFLA_LINKINFO")["attrs"])
    assert attributes == of_end("nsm-1", 5, MAC)
    assert info["IFLA_INFO_KIND"] == "vxlan"
    assert dict(info["IFLA_INFO_DATA"]["attrs"]) == {
        "IFLA_VXLAN_ID": 77,
        f"IFLA_VXLAN_LOCAL{family}": local,
        f"IFLA_VXLAN_GROUP{family}": remote,
        "IFLA_VXLAN_PORT": 4790,
        "IFLA_VXLAN_LEARNING": 0,
        "IFLA_VXLAN_UDP_ZERO_CSUM6_RX": 1,
    }


def test_a_vxlan_peer_on_another_port_gets_all_frames():
    found, attributes = read(ndmsg, messages.add_vxlan_peer(9, ipaddress.ip_address("172.16.1.2"), 6000))
    assert (found["header"]["type"], found["family"], found["ifindex"]) == (28, 7, 9)
    assert (found["state"], found["flags"]) == (0xC0, 2)
    assert attributes == {"NDA_LLADDR": "00:00:00:00:00:00", "NDA_DST": "172.16.1.2", "NDA_PORT": 6000}


def test_routes_and_addresses_are_asked_for_and_read():
    address = ipaddress.ip_address("172.16.1.1")
    found, attributes = read(rtmsg, messages.get_route(address), acknowledged=False)
    assert (found["header"]["type"], found["dst_len"], attributes) == (26, 32, {"RTA_DST": "172.16.1.1"})
    question = messages.get_addresses(6)
    found, _ = read(ifaddrmsg, question, acknowledged=False)
    assert (found["header"]["type"], found["header"]["flags"], found["family"]) == (22, 0x301, 10)
    answer = messages.add_address(9, ipaddress.ip_interface("172.16.1.1/24"))
    assert messages.decode_address(answer.data) == (9, address)
    answer = messages.add_route(9, ipaddress.ip_network("10.0.0.0/8"), None)
    assert messages.decode_route(answer.data) == messages.RouteAnswer(9, False, 0)


@pytest.mark.parametrize(("peer", "family"), [("172.16.1.2", 2), ("fd00::2", 10)])
def test_a_wireguard_device_has_one_peer_who_may_send_and_get_everything(peer, family):
    own, other = bytes(range(32)), bytes(range(32, 64))
    message = wireguard.set_device(0x20, 1001, own, 51820, other, ipaddress.ip_address(peer), 6000)
    found, attributes = read(wgmsg, message)
    assert (found["header"]["type"], found["cmd"], found["version"]) == (0x20, 1, 1)
    assert attributes.pop("WGDEVICE_A_PRIVATE_KEY") == base64.b64encode(own)
    (one,) = attributes.pop("WGDEVICE_A_PEERS")
    assert attributes == {"WGDEVICE_A_IFINDEX": 1001, "WGDEVICE_A_LISTEN_PORT": 51820, "WGDEVICE_A_FLAGS": 1}
    set_to = dict(one["attrs"])
    assert set_to["WGPEER_A_PUBLIC_KEY"] == base64.b64encode(other)
    assert set_to["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL"] == 10
    endpoint = set_to["WGPEER_A_ENDPOINT"]
    assert (endpoint["family"], endpoint["addr"], endpoint["port"]) == (family, peer, 6000)
    allowed = [dict(each["attrs"]) for each in set_to["WGPEER_A_ALLOWEDIPS"]]
    assert [(each["WGALLOWEDIP_A_FAMILY"], each["WGALLOWEDIP_A_CIDR_MASK"]) for each in allowed] == [(2, 0), (10, 0)]


def test_when_a_wireguard_peer_was_heard_is_read():
    """As the kernel writes it: the peers are a list, each with its time in seconds and nanoseconds."""
    heard = encoding.attribute(6, struct.pack("=qq", 1700000000, 5))
    for peer, when in ((heard, 1700000000), (encoding.attribute(5, b"\0\0"), 0)):
        peers = encoding.attribute(8 | 0x8000, encoding.attribute(0x8000, peer))
        assert wireguard.decode_handshake(bytes(20) + encoding.number(1, 9) + peers) == when
    assert wireguard.decode_handshake(bytes(20) + encoding.number(1, 9)) == 0


def test_a_link_is_renamed():
    assert read(ifinfmsg, messages.rename(9, "nsm-1"))[1] == {"IFLA_IFNAME": "nsm-1"}


def test_interfaces_on_another_link_name_it():
    end = messages.LinkEnd("nsm-1", 1001, MAC, 5)
    for message, kind, data in (
        (messages.create_macvlan(end, 7, mtu=9000), "macvlan", {"IFLA_MACVLAN_MODE": "bridge"}),
        (messages.create_vlan(end, 7, 100), "vlan", {"IFLA_VLAN_ID": 100}),
    ):
        found, attributes = read(ifinfmsg, message)
        assert (found["header"]["type"], found["header"]["flags"]) == (16, REQUEST_ACK | CREATE_EXCL)
        info = dict(attributes["IFLA_LINKINFO"]["attrs"])
        assert (attributes["IFLA_LINK"], info["IFLA_INFO_KIND"]) == (7, kind)
        assert dict(info["IFLA_INFO_DATA"]["attrs"]) == data


def test_links_and_those_on_a_link_are_listed():
    """As the kernel checks it strictly: nothing but the question is set."""
    found, attributes = read(ifinfmsg, messages.get_links(), acknowledged=False)
    assert (found["header"]["type"], found["header"]["flags"], attributes) == (18, 0x301, {})
    assert (found["index"], found["flags"], found["change"]) == (0, 0, 0)
    found, attributes = read(ndmsg, messages.get_stations(9), acknowledged=False)
    assert (found["header"]["type"], found["header"]["flags"], found["family"]) == (30, 0x301, 7)
    assert (found["ifindex"], found["state"], found["flags"], attributes) == (9, 0, 0, {})


def test_the_address_of_one_interface_on_a_link_is_told_from_groups():
    address = ipaddress.ip_address("10.0.0.1")
    assert messages.decode_station(messages.add_neighbor(9, address, MAC).data) == MAC
    assert messages.decode_station(messages.add_neighbor(9, address, "33:33:00:00:00:01").data) == ""
    assert messages.alias_of(messages.set_up(9, "nsm forwarder ü").data) == "nsm forwarder ü"
    assert messages.alias_of(messages.delete_link(9).data) == ""


def test_what_is_so_already_is_fine():
    """A route that is there, and what is to be removed and is gone."""
    import errno

    network, address = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_interface("10.0.0.1/32")
    assert messages.add_route(9, network, None).fine == {errno.EEXIST}
    for message in (
        messages.remove_route(9, network, None),
        messages.remove_address(9, address),
        messages.remove_neighbor(9, address.ip),
    ):
        assert {errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT} <= message.fine
    assert messages.add_address(9, address).fine == frozenset()


def test_a_link_goes_on_asking_for_next_hops():
    found, attributes = read(ndtmsg, messages.keep_asking(9))
    assert (found["header"]["type"], found["family"], attributes["NDTA_NAME"]) == (67, socket.AF_INET6, "ndisc_cache")
    parameters = dict(attributes["NDTA_PARMS"]["attrs"])
    assert (parameters["NDTPA_IFINDEX"], parameters["NDTPA_MCAST_PROBES"]) == (9, 1 << 20)


def test_a_link_answers_for_others_only_if_it_is_told_to():
    """As the kernel reads it: the settings of IPv4 among those of all families, each by its number."""

    def families(message):
        return encoding.attributes_in(message.data, encoding.HEADER.size + encoding.LINK.size).get(26)

    assert families(messages.set_up(9, "nsm f c")) is None
    settings = encoding.attributes_in(families(messages.set_up(9, "nsm f c", proxy_arp=True)))[socket.AF_INET]
    assert encoding.attributes_in(encoding.attributes_in(settings)[1]) == {3: struct.pack("=I", 1)}
