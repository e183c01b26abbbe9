"""What is asked of VPP when a transcript is recorded, and of the stand-in to compare: each message that we use.

`run` makes the calls one after the other, with wrong ones among them, and returns what came back, decoded. It has to
begin with a VPP that was just started: indices are part of the answers. `record` runs it against a real VPP.
"""

import asyncio
import ipaddress

from nsm.forwarder_vpp.api import Rejected

NONE = 0xFFFFFFFF
UP = ["IF_STATUS_API_FLAG_ADMIN_UP"]
LINKS = ("standin0", "standin1")
"""Interfaces of the host, each with a peer that is up."""
VARYING = {
    "vpe_pid", "pid", "l2_address", "mac_address", "hw_addr", "stats_index", "version", "build_date", "build_directory",
    "thread_data", "reply", "resulting_feature_bitmap", "age", "public_key", "private_key", "link_speed", "link_duplex",
}  # fmt: skip
"""Fields that differ from one run of VPP to the next, or that the stand-in makes up."""


class Asking:
    """Makes calls, and keeps what came back."""

    def __init__(self, vpp):
        self.vpp = vpp
        self.answers = []

    async def call(self, name, /, **fields):
        """A call; what is refused is an answer as well."""
        try:
            reply = await self.vpp.call(name, timeout=10, **fields)
        except Rejected as error:
            reply = {"retval": error.number}
        self.answers.append((name, reply))
        return reply

    async def dump(self, name, /, **fields):
        try:
            found = await self.vpp.dump(name, timeout=10, **fields)
        except Rejected as error:
            found = {"retval": error.number}
        self.answers.append((name, found))
        return found

    async def event(self, events):
        """The next event, of one kind after the other."""
        async with asyncio.timeout(20):
            name, event = await anext(events)
        self.answers.append((name, event))

    async def until(self, events, indices):
        """Wait until interfaces have their link; how many events that takes is VPP's own affair."""
        missing = set(indices)
        async with asyncio.timeout(20):
            while missing:
                name, event = await anext(events)
                if name == "sw_interface_event" and "IF_STATUS_API_FLAG_LINK_UP" in event.flags:
                    missing.discard(event.sw_if_index)

    async def gone(self, events, indices):
        """Wait until interfaces are deleted."""
        missing = set(indices)
        async with asyncio.timeout(20):
            while missing:
                name, event = await anext(events)
                if name == "sw_interface_event" and event.deleted:
                    missing.discard(event.sw_if_index)


def comparable(answers):
    """The answers without what varies; of a refusal only its number, since VPP leaves the rest as it is."""
    return [(name, _comparable(answer)) for name, answer in answers]


def _comparable(value):
    if isinstance(value, dict):
        if value.get("retval", 0) < 0:
            return {"retval": value["retval"]}
        return {name: _comparable(one) for name, one in value.items() if name not in VARYING}
    if isinstance(value, list):
        return [_comparable(one) for one in value if not (isinstance(one, dict) and one.get("socket_id") == 0)]
    return value


async def run(vpp, *, tap=True):
    """Ask for all of it. `tap`: whether the machine has what a tap needs."""
    ask = Asking(vpp)
    await general(ask)
    await interfaces(ask)
    await af_packets(ask)
    if tap:
        await taps(ask)
    else:
        await ask.call("tap_create_v3", host_if_name="standin-tap", host_if_name_set=True)
        await ask.call("tap_delete_v2", sw_if_index=0)
        await ask.dump("sw_interface_tap_v2_dump", sw_if_index=NONE)
    await memifs(ask)
    await vxlans(ask)
    await wireguards(ask)
    await ipips(ask)
    await layer2(ask)
    await layer3(ask)
    await lists(ask)
    await ikev2(ask)
    await events(ask)
    return ask.answers


async def general(ask):
    await ask.call("control_ping")
    await ask.call("show_version")
    await ask.call("show_threads")
    await ask.call("cli_inband", cmd="show version")
    await ask.dump("sw_interface_dump")


async def interfaces(ask):
    """Loopbacks, and what all interfaces have."""
    loop = (await ask.call("create_loopback_instance", is_specified=True, user_instance=7)).get("sw_if_index")
    await ask.call("create_loopback_instance", is_specified=True, user_instance=7)
    other = (await ask.call("create_loopback", mac_address="02:00:00:00:00:07")).get("sw_if_index")
    await ask.call("sw_interface_get_mac_address", sw_if_index=other)
    await ask.call("sw_interface_set_mac_address", sw_if_index=other, mac_address="02:00:00:00:00:08")
    for index in (loop, 999):
        await ask.call("sw_interface_set_flags", sw_if_index=index, flags=UP)
        await ask.call("sw_interface_tag_add_del", is_add=True, sw_if_index=index, tag="connection-1")
        await ask.call("sw_interface_set_mtu", sw_if_index=index, mtu=[1400, 0, 0, 0])
        await ask.call("hw_interface_set_mtu", sw_if_index=index, mtu=1500)
        await ask.call("sw_interface_set_promisc", sw_if_index=index, promisc_on=True)
        await ask.call("sw_interface_set_rx_mode", sw_if_index=index, mode="RX_MODE_API_ADAPTIVE")
        await ask.call("sw_interface_set_rx_placement", sw_if_index=index, queue_id=0, worker_id=0, is_main=True)
        await ask.call("sw_interface_get_table", sw_if_index=index)
        await ask.call("sw_interface_ip6_enable_disable", sw_if_index=index, enable=True)
        await ask.call("sw_interface_ip6nd_ra_config", sw_if_index=index, suppress=1)
        await ask.call("ip6nd_send_router_solicitation", sw_if_index=index, stop=True)
    await ask.call("sw_interface_tag_add_del", is_add=True, sw_if_index=loop, tag="")
    for prefix in ("10.9.0.1/24", "10.9.0.1/24", "10.9.0.2/24", "10.9.0.2/32", "2001:db8:9::1/64", "2001:db8:9::1/64"):
        await ask.call("sw_interface_add_del_address", sw_if_index=loop, is_add=True, prefix=prefix)
    for prefix in ("10.9.0.9/24", "10.9.1.1/24", "2001:db8:9::9/64", "2001:db8:91::1/64"):
        await ask.call("sw_interface_add_del_address", sw_if_index=other, is_add=True, prefix=prefix)
    await ask.call("sw_interface_add_del_address", sw_if_index=999, is_add=True, prefix="10.9.2.1/24")
    await ask.dump("ip_address_dump", sw_if_index=loop)
    await ask.dump("ip_address_dump", sw_if_index=loop, is_ipv6=True)
    await ask.call("sw_interface_add_del_address", sw_if_index=loop, prefix="10.9.0.1/24")
    await ask.call("sw_interface_add_del_address", sw_if_index=loop, prefix="10.9.0.1/24")
    await ask.call("sw_interface_add_del_address", sw_if_index=loop, prefix="2001:db8:99::1/64")
    await ask.dump("ip_address_dump", sw_if_index=loop)
    await ask.dump("sw_interface_dump")
    await ask.dump("sw_interface_dump", sw_if_index=loop)
    await ask.dump("sw_interface_dump", sw_if_index=999)
    await ask.dump("sw_interface_dump", name_filter_valid=True, name_filter="LOOP7")
    await ask.dump("sw_interface_rx_placement_dump", sw_if_index=NONE)
    await ask.call("sw_interface_set_table", sw_if_index=other, vrf_id=77)
    await ask.call("ip_table_add_del", is_add=True, table={"table_id": 77, "name": "seventy-seven"})
    await ask.call("sw_interface_set_table", sw_if_index=other, vrf_id=77)
    await ask.call("sw_interface_add_del_address", sw_if_index=other, del_all=True)
    await ask.call("sw_interface_set_unnumbered", sw_if_index=loop, unnumbered_sw_if_index=other, is_add=True)
    await ask.dump("ip_unnumbered_dump", sw_if_index=NONE)
    await ask.call("sw_interface_set_unnumbered", unnumbered_sw_if_index=other, is_add=False)
    await ask.dump("ip_unnumbered_dump", sw_if_index=NONE)
    await ask.call("sw_interface_set_table", sw_if_index=other, vrf_id=77)
    await ask.call("sw_interface_get_table", sw_if_index=other)
    await ask.dump("ip_table_dump")
    await ask.call("sw_interface_set_unnumbered", sw_if_index=loop, unnumbered_sw_if_index=999, is_add=True)
    await ask.call("sw_interface_set_unnumbered", sw_if_index=loop, unnumbered_sw_if_index=other, is_add=True)
    await ask.call("sw_interface_set_interface_name", sw_if_index=other, name="named")
    await ask.call("sw_interface_set_interface_name", sw_if_index=other, name="")
    await ask.call("sw_interface_set_interface_name", sw_if_index=999, name="named")
    await ask.dump("sw_interface_dump", sw_if_index=other)
    await ask.call("sw_interface_set_flags", sw_if_index=loop, flags=[])
    await ask.call("delete_loopback", sw_if_index=other)
    await ask.call("delete_loopback", sw_if_index=other)
    await ask.call("delete_loopback", sw_if_index=0)
    await ask.call("sw_interface_add_del_address", sw_if_index=loop, del_all=True)
    await ask.call("delete_loopback", sw_if_index=loop)
    await ask.call("ip_table_add_del", is_add=False, table={"table_id": 77})
    await ask.call("ip_table_add_del", is_add=False, table={"table_id": 77})
    await ask.dump("sw_interface_dump")


async def af_packets(ask):
    made = await ask.call(
        "af_packet_create_v3",
        mode="AF_PACKET_API_MODE_ETHERNET",
        hw_addr="02:00:00:00:01:01",
        host_if_name=LINKS[0],
        rx_frame_size=10240,
        tx_frame_size=10240,
        rx_frames_per_block=1024,
        tx_frames_per_block=1024,
        flags=["AF_PACKET_API_FLAG_VERSION_2", "AF_PACKET_API_FLAG_CKSUM_GSO"],
        num_rx_queues=1,
        num_tx_queues=1,
    )
    index = made.get("sw_if_index")
    await ask.call("af_packet_create_v3", mode="AF_PACKET_API_MODE_ETHERNET", host_if_name=LINKS[0])
    await ask.call("af_packet_create_v3", mode="AF_PACKET_API_MODE_ETHERNET", host_if_name="not-there")
    await ask.dump("af_packet_dump")
    await ask.call("sw_interface_set_flags", sw_if_index=index, flags=UP)
    await ask.call("sw_interface_set_promisc", sw_if_index=index, promisc_on=True)
    await ask.call("sw_interface_set_rx_mode", sw_if_index=index, mode="RX_MODE_API_INTERRUPT")
    await ask.call("sw_interface_set_mac_address", sw_if_index=index, mac_address="02:00:00:00:01:02")
    await ask.call("hw_interface_set_mtu", sw_if_index=index, mtu=1400)
    await ask.call("sw_interface_set_mtu", sw_if_index=index, mtu=[1400, 0, 0, 0])
    await ask.call("feature_gso_enable_disable", sw_if_index=index, enable_disable=True)
    await ask.call("af_packet_set_l4_cksum_offload", sw_if_index=index, set=False)
    await ask.dump("sw_interface_rx_placement_dump", sw_if_index=index)
    await ask.call("sw_interface_set_rx_placement", sw_if_index=index, queue_id=9, worker_id=0, is_main=True)
    await ask.dump("sw_interface_tx_placement_get", sw_if_index=NONE)
    await ask.dump("sw_interface_dump", sw_if_index=index)
    await ask.call("af_packet_delete", host_if_name=LINKS[0])
    await ask.call("af_packet_delete", host_if_name=LINKS[0])
    made = await ask.call("af_packet_create_v2", host_if_name=LINKS[0], use_random_hw_addr=True, rx_frame_size=2048)
    await ask.call("af_packet_delete", host_if_name=LINKS[0])


async def taps(ask):
    for flags in ([], ["TAP_API_FLAG_TUN"]):
        made = await ask.call(
            "tap_create_v3",
            id=5,
            host_if_name="standin-tap",
            host_if_name_set=True,
            tap_flags=flags,
            tag="connection-2",
        )
        await ask.call("tap_create_v3", id=5, host_if_name="standin-tap2", host_if_name_set=True)
        await ask.call("sw_interface_set_flags", sw_if_index=made.get("sw_if_index"), flags=UP)
        await ask.dump("sw_interface_tap_v2_dump", sw_if_index=NONE)
        await ask.dump("sw_interface_dump", sw_if_index=made.get("sw_if_index"))
        await ask.call("tap_delete_v2", sw_if_index=made.get("sw_if_index"))
        await ask.call("tap_delete_v2", sw_if_index=made.get("sw_if_index"))


async def memifs(ask):
    await ask.call("memif_socket_filename_add_del_v2", is_add=True, socket_id=0, socket_filename="abstract:standin/x")
    first = await ask.call("memif_socket_filename_add_del_v2", is_add=True, socket_filename="abstract:standin/1")
    number = first.get("socket_id")
    for name in ("abstract:standin/1", "abstract:standin/2", ""):
        await ask.call("memif_socket_filename_add_del_v2", is_add=True, socket_id=number, socket_filename=name)
    await ask.call("memif_socket_filename_add_del_v2", is_add=False, socket_id=55)
    await ask.dump("memif_socket_filename_dump")
    made = await ask.call(
        "memif_create_v2",
        role="MEMIF_ROLE_API_MASTER",
        mode="MEMIF_MODE_API_IP",
        rx_queues=1,
        tx_queues=1,
        id=0,
        socket_id=number,
        ring_size=1024,
        buffer_size=2048,
        hw_addr="02:00:00:00:02:01",
    )
    index = made.get("sw_if_index")
    await ask.call("memif_create_v2", role="MEMIF_ROLE_API_MASTER", socket_id=number, ring_size=1024)
    await ask.call("memif_create_v2", role="MEMIF_ROLE_API_MASTER", socket_id=99, ring_size=1024)
    await ask.call("memif_create_v2", role="MEMIF_ROLE_API_MASTER", id=1, socket_id=number, ring_size=1000)
    await ask.call("memif_create_v2", role="MEMIF_ROLE_API_SLAVE", id=2, socket_id=number, ring_size=1024)
    await ask.call("memif_socket_filename_add_del_v2", is_add=False, socket_id=number)
    await ask.dump("memif_dump")
    await ask.dump("sw_interface_dump", sw_if_index=index)
    await ask.call("sw_interface_set_mtu", sw_if_index=index, mtu=[1450, 0, 0, 0])
    await ask.call("memif_delete", sw_if_index=index)
    await ask.call("memif_delete", sw_if_index=index)
    await ask.call("memif_socket_filename_add_del_v2", is_add=False, socket_id=number)
    await ask.dump("memif_dump")
    await ask.dump("memif_socket_filename_dump")


async def vxlans(ask):
    tunnel = {"src_address": "192.0.2.1", "dst_address": "192.0.2.2", "vni": 42, "src_port": 4789, "dst_port": 4789}
    tunnel |= {"instance": NONE, "mcast_sw_if_index": NONE, "decap_next_index": NONE}
    made = await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **tunnel)
    index = made.get("sw_if_index")
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **tunnel)
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **{**tunnel, "vni": 43, "instance": 0})
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **{**tunnel, "dst_address": "2001:db8::2"})
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **{**tunnel, "dst_address": "192.0.2.1"})
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **{**tunnel, "encap_vrf_id": 5})
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **{**tunnel, "dst_address": "239.0.0.1"})
    six = {**tunnel, "src_address": "2001:db8::1", "dst_address": "2001:db8::2", "src_port": 8472, "dst_port": 8472}
    await ask.call("vxlan_add_del_tunnel_v3", is_add=True, **six)
    await ask.dump("vxlan_tunnel_v2_dump", sw_if_index=NONE)
    await ask.dump("vxlan_tunnel_v2_dump", sw_if_index=index)
    await ask.dump("vxlan_tunnel_v2_dump", sw_if_index=999)
    await ask.dump("sw_interface_dump", sw_if_index=index)
    for one in (tunnel, tunnel, six):
        await ask.call("vxlan_add_del_tunnel_v3", is_add=False, **one)
    await ask.dump("vxlan_tunnel_v2_dump", sw_if_index=NONE)


async def wireguards(ask):
    key, other, third = (bytes([number]) * 31 + b"\x40" for number in (8, 16, 24))
    said = {"user_instance": NONE, "port": 51820, "src_ip": "192.0.2.1", "private_key": key}
    made = await ask.call("wireguard_interface_create", interface=said)
    index = made.get("sw_if_index")
    await ask.call("wireguard_interface_create", interface={**said, "user_instance": 0, "private_key": other})
    again = await ask.call("wireguard_interface_create", interface={**said, "private_key": other})
    await ask.dump("wireguard_interface_dump", show_private_key=True, sw_if_index=NONE)
    await ask.dump("wireguard_interface_dump", sw_if_index=index)
    peer = {
        "public_key": third,
        "port": 51820,
        "persistent_keepalive": 10,
        "table_id": 0,
        "endpoint": "192.0.2.2",
        "sw_if_index": index,
        "allowed_ips": ["0.0.0.0/0", "::/0"],
        "n_allowed_ips": 2,
    }
    added = await ask.call("wireguard_peer_add", peer=peer)
    await ask.call("wireguard_peer_add", peer=peer)
    await ask.call("wireguard_peer_add", peer={**peer, "public_key": other, "sw_if_index": 999})
    await ask.call("wireguard_peer_add", peer={**peer, "public_key": other, "allowed_ips": [], "n_allowed_ips": 0})
    await ask.call("want_wireguard_peer_events", sw_if_index=NONE, peer_index=NONE, enable_disable=1)
    await ask.dump("wireguard_peers_dump", peer_index=NONE)
    await ask.dump("wireguard_peers_dump", peer_index=added.get("peer_index"))
    await ask.dump("sw_interface_dump", sw_if_index=index)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=index, bd_id=5, enable=True)
    await ask.call("want_wireguard_peer_events", sw_if_index=NONE, peer_index=NONE, enable_disable=0)
    await ask.call("wireguard_peer_remove", peer_index=added.get("peer_index"))
    await ask.call("wireguard_peer_remove", peer_index=added.get("peer_index"))
    await ask.call("wireguard_interface_delete", sw_if_index=0)
    await ask.call("wireguard_interface_delete", sw_if_index=999)
    await ask.call("wireguard_interface_delete", sw_if_index=index)
    await ask.call("wireguard_interface_delete", sw_if_index=again.get("sw_if_index"))
    await ask.dump("wireguard_interface_dump", sw_if_index=NONE)
    await ask.dump("wireguard_peers_dump", peer_index=NONE)


async def ipips(ask):
    tunnel = {"instance": NONE, "src": "192.0.2.1", "dst": "192.0.2.2", "sw_if_index": NONE}
    made = await ask.call("ipip_add_tunnel", tunnel=tunnel)
    await ask.call("ipip_add_tunnel", tunnel=tunnel)
    await ask.dump("ipip_tunnel_dump", sw_if_index=NONE)
    await ask.dump("ipsec_tunnel_protect_dump", sw_if_index=NONE)
    await ask.call("ipsec_tunnel_protect_del", sw_if_index=made.get("sw_if_index"))
    await ask.call("ipip_del_tunnel", sw_if_index=made.get("sw_if_index"))
    await ask.call("ipip_del_tunnel", sw_if_index=999)
    made = await ask.call("ipsec_itf_create", itf={"user_instance": NONE, "mode": "TUNNEL_API_MODE_P2P"})
    await ask.call("ipsec_itf_create", itf={"user_instance": 0, "mode": "TUNNEL_API_MODE_P2P"})
    await ask.call("ipsec_itf_delete", sw_if_index=made.get("sw_if_index"))
    await ask.call("ipsec_itf_delete", sw_if_index=999)


async def layer2(ask):
    one = (await ask.call("create_loopback_instance")).get("sw_if_index")
    two = (await ask.call("create_loopback_instance")).get("sw_if_index")
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, tx_sw_if_index=two, enable=True)
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=two, tx_sw_if_index=one, enable=True)
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=999, tx_sw_if_index=one, enable=True)
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, tx_sw_if_index=999, enable=True)
    await ask.dump("l2_xconnect_dump")
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, tx_sw_if_index=two, enable=False)
    await ask.dump("l2_xconnect_dump")
    domain = {"flood": True, "uu_flood": True, "forward": True, "learn": True}
    await ask.call("bridge_domain_add_del_v2", is_add=True, bd_id=12, bd_tag="service/12", **domain)
    await ask.call("bridge_domain_add_del_v2", is_add=True, bd_id=12, **domain)
    any_ = (await ask.call("bridge_domain_add_del_v2", is_add=True, bd_id=NONE, **domain)).get("bd_id")
    await ask.call("bridge_domain_add_del_v2", is_add=True, bd_id=0x1000000, **domain)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=13)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=0)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=one, bd_id=12, shg=1, enable=True)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=two, bd_id=12, shg=0, enable=True)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=999, bd_id=12, enable=True)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=two, bd_id=0x1000000, enable=True)
    await ask.call("bridge_flags", bd_id=12, is_set=False, flags=["BRIDGE_API_FLAG_LEARN"])
    await ask.call("bridge_flags", bd_id=14, is_set=False, flags=["BRIDGE_API_FLAG_LEARN"])
    await ask.dump("bridge_domain_dump", bd_id=NONE, sw_if_index=NONE)
    await ask.dump("bridge_domain_dump", bd_id=12, sw_if_index=NONE)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=12)
    sub = (await ask.call("create_vlan_subif", sw_if_index=one, vlan_id=100)).get("sw_if_index")
    await ask.call("create_vlan_subif", sw_if_index=one, vlan_id=100)
    await ask.call("create_vlan_subif", sw_if_index=999, vlan_id=100)
    more = await ask.call(
        "create_subif",
        sw_if_index=one,
        sub_id=101,
        sub_if_flags=["SUB_IF_API_FLAG_ONE_TAG", "SUB_IF_API_FLAG_EXACT_MATCH"],
        outer_vlan_id=101,
    )
    await ask.call("l2_interface_vlan_tag_rewrite", sw_if_index=sub, vtr_op=3)
    await ask.call("l2_interface_vlan_tag_rewrite", sw_if_index=one, vtr_op=3)
    await ask.call("l2_interface_vlan_tag_rewrite", sw_if_index=sub, vtr_op=4)
    await ask.call("l2_interface_vlan_tag_rewrite", sw_if_index=999, vtr_op=3)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=sub, bd_id=12, enable=True)
    await ask.call("l2_interface_vlan_tag_rewrite", sw_if_index=sub, vtr_op=3)
    await ask.dump("sw_interface_dump", sw_if_index=sub)
    await ask.call("sw_interface_set_flags", sw_if_index=sub, flags=UP)
    await ask.call("sw_interface_set_flags", sw_if_index=one, flags=UP)
    await ask.call("sw_interface_set_flags", sw_if_index=sub, flags=UP)
    await ask.dump("sw_interface_dump", sw_if_index=sub)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=sub, bd_id=12, enable=False)
    await ask.call("delete_subif", sw_if_index=sub)
    await ask.call("delete_subif", sw_if_index=sub)
    await ask.call("delete_subif", sw_if_index=more.get("sw_if_index"))
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=one, bd_id=12, enable=False)
    await ask.call("delete_loopback", sw_if_index=one)
    await ask.call("delete_loopback", sw_if_index=two)
    await ask.dump("bridge_domain_dump", bd_id=NONE, sw_if_index=NONE)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=12)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=any_)
    one = (await ask.call("create_loopback_instance")).get("sw_if_index")
    two = (await ask.call("create_loopback_instance")).get("sw_if_index")
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, tx_sw_if_index=two, enable=True)
    await ask.call("sw_interface_set_l2_bridge", rx_sw_if_index=two, bd_id=77, enable=True)
    await ask.dump("bridge_domain_dump", bd_id=NONE, sw_if_index=NONE)
    await ask.call("sw_interface_set_l2_xconnect", rx_sw_if_index=one, enable=False)
    await ask.call("delete_loopback", sw_if_index=two)
    await ask.dump("l2_xconnect_dump")
    await ask.dump("bridge_domain_dump", bd_id=77, sw_if_index=NONE)
    await ask.call("bridge_domain_add_del_v2", is_add=False, bd_id=77)
    await ask.call("delete_loopback", sw_if_index=one)
    await ask.dump("l2_xconnect_dump")


def path(index, address=None, **more):
    """One path, to an interface, by a next hop if there is one."""
    is_six = address is not None and ipaddress.ip_address(address).version == 6
    proto = f"FIB_API_PATH_NH_PROTO_IP{6 if is_six else 4}"
    hop = {} if address is None else {"nh": {"address": ipaddress.ip_address(address)}}
    return {"sw_if_index": index, "proto": proto, "weight": 1, **hop, **more}


async def layer3(ask):
    one = (await ask.call("create_loopback_instance")).get("sw_if_index")
    two = (await ask.call("create_loopback_instance")).get("sw_if_index")
    for index, network in ((one, 1), (two, 2)):
        await ask.call("sw_interface_set_flags", sw_if_index=index, flags=UP)
        await ask.call("sw_interface_add_del_address", sw_if_index=index, is_add=True, prefix=f"10.8.{network}.1/24")
    await ask.call("l3xc_update", l3xc={"sw_if_index": one, "n_paths": 1, "paths": [path(two, "10.8.2.2")]})
    await ask.call("l3xc_update", l3xc={"sw_if_index": one, "n_paths": 1, "paths": [path(two)]})
    six = path(two, "2001:db8::2")
    await ask.call("l3xc_update", l3xc={"sw_if_index": one, "is_ip6": True, "n_paths": 1, "paths": [six]})
    await ask.call("l3xc_update", l3xc={"sw_if_index": one, "n_paths": 0})
    await ask.call("l3xc_update", l3xc={"sw_if_index": 999, "n_paths": 1, "paths": [path(two)]})
    await ask.call("l3xc_update", l3xc={"sw_if_index": one, "n_paths": 1, "paths": [path(999)]})
    await ask.dump("l3xc_dump", sw_if_index=NONE)
    await ask.dump("l3xc_dump", sw_if_index=two)
    await ask.call("l3xc_del", sw_if_index=one, is_ip6=True)
    await ask.call("l3xc_del", sw_if_index=one)
    await ask.call("l3xc_del", sw_if_index=one)
    await ask.call("l3xc_del", sw_if_index=999)
    route = {"prefix": "198.51.100.0/24", "n_paths": 1, "paths": [path(one, "10.8.1.2")]}
    await ask.call("ip_route_add_del_v2", is_add=True, route=route)
    await ask.call(
        "ip_route_add_del_v2", is_add=True, is_multipath=True, route={**route, "paths": [path(two, "10.8.2.2")]}
    )
    await ask.call("ip_route_add_del_v2", is_add=True, route={**route, "table_id": 99})
    await ask.call("ip_route_add_del_v2", is_add=True, route={**route, "paths": [path(999)]})
    await ask.call("ip_route_add_del_v2", is_add=True, route={**route, "n_paths": 0, "paths": []})
    await ask.call("ip_route_add_del_v2", is_add=False, route={**route, "n_paths": 0, "paths": []})
    await ask.call("ip_route_add_del_v2", is_add=False, route={**route, "n_paths": 0, "paths": []})
    await ask.dump("ip_route_v2_dump", table={"table_id": 7})
    neighbor = {"sw_if_index": one, "flags": ["IP_API_NEIGHBOR_FLAG_STATIC"], "mac_address": "02:00:00:00:08:01"}
    for address in ("10.8.1.2", "2001:db8::3"):
        await ask.call("ip_neighbor_add_del", is_add=True, neighbor={**neighbor, "ip_address": address})
    await ask.call(
        "ip_neighbor_add_del", is_add=True, neighbor={**neighbor, "sw_if_index": 999, "ip_address": "10.8.1.3"}
    )
    await ask.dump("ip_neighbor_dump", sw_if_index=NONE, af="ADDRESS_IP4")
    await ask.dump("ip_neighbor_dump", sw_if_index=one, af="ADDRESS_IP6")
    await ask.call("ip_neighbor_flush", sw_if_index=one, af="ADDRESS_IP4")
    await ask.dump("ip_neighbor_dump", sw_if_index=NONE, af="ADDRESS_IP4")
    await ask.call("ip_neighbor_add_del", is_add=False, neighbor={**neighbor, "ip_address": "2001:db8::3"})
    await ask.call("ip_neighbor_add_del", is_add=False, neighbor={**neighbor, "ip_address": "2001:db8::3"})
    await ask.call("want_ip_neighbor_events_v2", enable=1, ip="0.0.0.0", sw_if_index=NONE)
    await ask.call("want_ip_neighbor_events_v2", enable=0, ip="0.0.0.0", sw_if_index=NONE)
    await ask.call("ip_table_allocate", table={"table_id": NONE, "name": "any"})
    await ask.call("ip_table_flush", table={"table_id": 4242})
    await ask.call("arping", address="10.8.1.99", sw_if_index=999, repeat=1, interval=0.1)
    for index in (one, two):
        await ask.call("sw_interface_add_del_address", sw_if_index=index, del_all=True)
        await ask.call("delete_loopback", sw_if_index=index)


async def lists(ask):
    loop = (await ask.call("create_loopback_instance")).get("sw_if_index")
    await ask.call("acl_plugin_get_version")
    ports = {"srcport_or_icmptype_last": 65535, "dstport_or_icmpcode_first": 4789, "dstport_or_icmpcode_last": 4789}
    rule = {
        "is_permit": "ACL_ACTION_API_PERMIT",
        "src_prefix": "0.0.0.0/0",
        "dst_prefix": "192.0.2.1/32",
        "proto": "IP_API_PROTO_UDP",
    }
    rule |= ports
    deny = {"is_permit": "ACL_ACTION_API_DENY", "src_prefix": "::/0", "dst_prefix": "::/0"}
    first = (await ask.call("acl_add_replace", acl_index=NONE, tag="nsm-pinhole port 4789", r=[rule])).get("acl_index")
    second = (await ask.call("acl_add_replace", acl_index=NONE, tag="nsm-deny", r=[deny, rule])).get("acl_index")
    await ask.call("acl_add_replace", acl_index=second, tag="nsm-deny-all", r=[deny])
    await ask.call("acl_add_replace", acl_index=99, tag="none", r=[rule])
    await ask.call("acl_add_replace", acl_index=NONE, tag="mixed", r=[{**rule, "src_prefix": "::/0"}])
    await ask.call("acl_add_replace", acl_index=NONE, tag="ports", r=[{**rule, "dstport_or_icmpcode_first": 5000}])
    await ask.call("acl_interface_set_acl_list", sw_if_index=loop, n_input=1, acls=[first, second])
    await ask.call("acl_interface_set_acl_list", sw_if_index=999, n_input=1, acls=[first])
    await ask.call("acl_interface_set_acl_list", sw_if_index=loop, n_input=1, acls=[99])
    await ask.dump("acl_interface_list_dump", sw_if_index=loop)
    await ask.dump("acl_dump", acl_index=NONE)
    await ask.dump("acl_dump", acl_index=first)
    await ask.call("acl_del", acl_index=first)
    await ask.call("acl_del", acl_index=second)
    await ask.call("acl_del", acl_index=99)
    await ask.call("acl_interface_set_acl_list", sw_if_index=loop, n_input=0, acls=[])
    await ask.call("acl_del", acl_index=first)
    await ask.call("acl_del", acl_index=second)
    await ask.dump("acl_dump", acl_index=NONE)
    await ask.call("delete_loopback", sw_if_index=loop)


async def ikev2(ask):
    await ask.call("ikev2_plugin_get_version")
    name = {"name": "client-1"}
    await ask.call("ikev2_profile_add_del", is_add=True, **name)
    await ask.call("ikev2_profile_add_del", is_add=True, **name)
    await ask.call("ikev2_profile_add_del", is_add=False, name="server-9")
    for one in (name, {"name": "server-9"}):
        await ask.call("ikev2_profile_set_auth", auth_method=2, data=b"secret", data_len=6, **one)
        for is_local in (True, False):
            said = b"local" if is_local else b"remote"
            await ask.call("ikev2_profile_set_id", is_local=is_local, id_type=2, data=said, data_len=len(said), **one)
            selector = {"is_local": is_local, "end_port": 65535, "start_addr": "10.7.0.1", "end_addr": "10.7.0.1"}
            await ask.call("ikev2_profile_set_ts", ts=selector, **one)
        await ask.call("ikev2_profile_set_udp_encap", **one)
        await ask.call(
            "ikev2_set_ike_transforms",
            tr={"crypto_alg": 12, "crypto_key_size": 256, "integ_alg": 2, "dh_group": 14},
            **one,
        )
        await ask.call("ikev2_set_esp_transforms", tr={"crypto_alg": 12, "crypto_key_size": 256, "integ_alg": 2}, **one)
        await ask.call(
            "ikev2_set_sa_lifetime", lifetime=3600, lifetime_jitter=10, handover=5, lifetime_maxdata=0, **one
        )
        await ask.call("ikev2_set_responder", responder={"sw_if_index": 0, "addr": "192.0.2.2"}, **one)
    await ask.call("ikev2_set_tunnel_interface", sw_if_index=999, **name)
    await ask.call("ikev2_set_local_key", key_file="/nowhere")
    await ask.dump("ikev2_profile_dump")
    await ask.dump("ikev2_sa_v3_dump")
    await ask.dump("ikev2_child_sa_v2_dump", sa_index=NONE)
    await ask.call("ikev2_initiate_sa_init", name="server-9")
    for message in ("ikev2_initiate_del_ike_sa", "ikev2_initiate_del_child_sa", "ikev2_initiate_rekey_child_sa"):
        await ask.call(message, ispi=7)
    await ask.call("ikev2_profile_set_ipsec_udp_port", is_set=1, port=4500, **name)
    await ask.call("ikev2_profile_set_liveness", period=30, max_retries=3)
    await ask.dump("ikev2_profile_dump")
    await ask.call("ikev2_profile_set_ipsec_udp_port", is_set=0, port=4501, **name)
    await ask.call("ikev2_profile_set_ipsec_udp_port", is_set=0, port=4500, **name)
    for message in ("ikev2_sa_dump", "ikev2_sa_v2_dump"):
        await ask.dump(message)
    await ask.dump("ikev2_child_sa_dump", sa_index=NONE)
    for message in ("ipsec_sa_v3_dump", "ipsec_sa_v5_dump"):
        await ask.dump(message, sa_id=NONE)
    await ask.call("ikev2_profile_disable_natt", **name)
    await ask.call("ikev2_profile_add_del", is_add=False, **name)
    await ask.dump("ikev2_profile_dump")


async def events(ask):
    """What comes unasked: interfaces, pings."""
    loop = (await ask.call("create_loopback_instance")).get("sw_if_index")
    await ask.call("want_interface_events", enable_disable=0, pid=7)
    with ask.vpp.events("sw_interface_event", "ping_finished_event") as seen:
        await ask.call("want_interface_events", enable_disable=1, pid=7)
        await ask.call("want_interface_events", enable_disable=1, pid=7)
        await ask.call("sw_interface_set_flags", sw_if_index=loop, flags=UP)
        await ask.event(seen)
        await ask.call("sw_interface_set_flags", sw_if_index=loop, flags=UP)
        other = (await ask.call("create_loopback_instance")).get("sw_if_index")
        await ask.event(seen)
        for flags in (UP, [], UP):
            await ask.call("sw_interface_set_flags", sw_if_index=other, flags=flags)
            await ask.event(seen)
        await ask.call("delete_loopback", sw_if_index=other)
        await ask.event(seen)
        await ask.call("sw_interface_add_del_address", sw_if_index=loop, is_add=True, prefix="10.6.0.1/24")
        await ask.call("want_ping_finished_events", address="10.6.0.1", repeat=2, interval=0.01)
        await ask.event(seen)
        await memif_pair(ask, seen)
        await ask.call("delete_loopback", sw_if_index=loop)
        await ask.event(seen)
        await ask.call("want_interface_events", enable_disable=0, pid=7)


async def memif_pair(ask, seen):
    """A master and a slave of one VPP."""
    for number in (1, 2):
        await ask.call(
            "memif_socket_filename_add_del_v2", is_add=True, socket_id=number, socket_filename="abstract:standin/pair"
        )
    made = []
    for number, role in ((1, "MASTER"), (2, "SLAVE")):
        mode = {"role": f"MEMIF_ROLE_API_{role}", "mode": "MEMIF_MODE_API_ETHERNET", "no_zero_copy": True}
        one = await ask.call("memif_create_v2", socket_id=number, ring_size=1024, buffer_size=2048, **mode)
        made.append(one.get("sw_if_index"))
        await ask.call("sw_interface_set_flags", sw_if_index=made[-1], flags=UP)
    await ask.until(seen, made)
    await ask.dump("memif_dump")
    for index in made:
        await ask.dump("sw_interface_dump", sw_if_index=index)
    await ask.call("sw_interface_set_rx_mode", sw_if_index=made[1], mode="RX_MODE_API_ADAPTIVE")
    for index in made:
        await ask.call("memif_delete", sw_if_index=index)
    await ask.gone(seen, made)
