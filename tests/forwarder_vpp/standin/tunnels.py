"""Tunnels: VXLAN, WireGuard, IP in IP."""

import hashlib

from .handlers import handles
from .world import NONE, Refusal


@handles
def vxlan_add_del_tunnel_v3(world, m):
    version = m.src_address.version
    if (version, m.encap_vrf_id) not in world.tables:
        raise Refusal("NO_SUCH_FIB", sw_if_index=NONE)
    if m.dst_address.version != version:
        raise Refusal("INVALID_VALUE", sw_if_index=NONE)
    if m.src_address == m.dst_address:
        raise Refusal("SAME_SRC_DST", sw_if_index=NONE)
    if m.dst_address.is_multicast and m.mcast_sw_if_index not in world.interfaces:
        raise Refusal("INVALID_SW_IF_INDEX", sw_if_index=NONE)
    key = (m.src_address, m.dst_address, m.encap_vrf_id, m.vni, m.src_port or 4789, m.dst_port or 4789)
    known = [one for one in world.interfaces.values() if one.kind == "vxlan" and one.own["key"] == key]
    if not m.is_add:
        if not known:
            raise Refusal("NO_SUCH_ENTRY", sw_if_index=NONE)
        world.instances["vxlan"].remove(known[0].own["instance"])
        world.remove(known[0])
        return {"sw_if_index": known[0].index}
    if known:
        raise Refusal("TUNNEL_EXIST", sw_if_index=NONE)
    number = world.instance("vxlan", m.instance)
    own = {"key": key, "instance": number, "decap_next_index": 1 if m.decap_next_index == NONE else m.decap_next_index}
    own["mcast_sw_if_index"] = m.mcast_sw_if_index
    made = world.add(f"vxlan_tunnel{number}", "vxlan", "VXLAN", is_ethernet=not m.is_l3, admin=True, link=True, own=own)
    return {"sw_if_index": made.index}


@handles
def vxlan_tunnel_v2_dump(world, m):
    found = []
    for one in world.interfaces.values():
        if one.kind == "vxlan" and m.sw_if_index in {one.index, NONE}:
            src, dst, table, vni, src_port, dst_port = one.own["key"]
            found.append(
                {
                    "sw_if_index": one.index,
                    "instance": one.own["instance"],
                    "src_address": src,
                    "dst_address": dst,
                    "src_port": src_port,
                    "dst_port": dst_port,
                    "mcast_sw_if_index": one.own["mcast_sw_if_index"],
                    "encap_vrf_id": table,
                    "decap_next_index": one.own["decap_next_index"],
                    "vni": vni,
                }
            )
    return found


@handles
def wireguard_interface_create(world, m):
    said = m.interface
    used = world.instances.get("wireguard", ())
    if said.user_instance != NONE and said.user_instance in used:
        raise Refusal("INVALID_REGISTRATION", sw_if_index=NONE)
    number = world.instance("wireguard", said.user_instance)
    private = hashlib.sha256(f"{number}".encode()).digest() if m.generate_key else said.private_key
    own = {"instance": number, "private_key": private, "port": said.port, "src_ip": said.src_ip}
    made = world.add(f"wg{number}", "wireguard", "Wireguard Tunnel", is_ethernet=False, own=own)
    return {"sw_if_index": made.index}


@handles
def wireguard_interface_delete(world, m):
    one = world.get(m.sw_if_index)
    if one.kind != "wireguard":
        raise Refusal("INVALID_VALUE")
    for index in [index for index, peer in world.peers.items() if peer["sw_if_index"] == one.index]:
        del world.peers[index]
        world.peer_pool.free(index)
    world.instances["wireguard"].remove(one.own["instance"])
    world.remove(one)
    return {}


@handles
def wireguard_interface_dump(world, m):
    return [
        {
            "interface": {
                "user_instance": one.own["instance"],
                "sw_if_index": one.index,
                "private_key": one.own["private_key"] if m.show_private_key else b"",
                "public_key": public_key(one.own["private_key"]),
                "port": one.own["port"],
                "src_ip": one.own["src_ip"],
            }
        }
        for one in world.interfaces.values()
        if one.kind == "wireguard" and m.sw_if_index in {one.index, NONE}
    ]


@handles
def wireguard_peer_add(world, m):
    peer = dict(m.peer)
    world.get(peer["sw_if_index"], peer_index=NONE)
    if not peer["n_allowed_ips"]:
        raise Refusal("INVALID_VALUE", peer_index=NONE)
    world.get(peer["sw_if_index"], kind="wireguard", peer_index=NONE)
    if any(known["public_key"] == peer["public_key"] for known in world.peers.values()):
        raise Refusal("ENTRY_ALREADY_EXISTS", peer_index=NONE)
    if (peer["endpoint"].version, peer["table_id"]) not in world.tables:
        raise Refusal("NO_SUCH_FIB", peer_index=NONE)
    index = world.peer_pool.take()
    world.peers[index] = {**peer, "peer_index": index, "flags": []}
    return {"peer_index": index}


@handles
def wireguard_peer_remove(world, m):
    if m.peer_index not in world.peers:
        raise Refusal("NO_SUCH_ENTRY")
    del world.peers[m.peer_index]
    world.peer_pool.free(m.peer_index)
    return {}


@handles
def wireguard_peers_dump(world, m):
    return [{"peer": peer} for index, peer in sorted(world.peers.items()) if m.peer_index in {index, NONE}]


@handles
def ipip_add_tunnel(world, m):
    said = m.tunnel
    key = (said.src, said.dst, said.table_id)
    if any(one.kind == "ipip" and one.own["key"] == key for one in world.interfaces.values()):
        raise Refusal("IF_ALREADY_EXISTS", sw_if_index=NONE)
    number = world.instance("ipip", said.instance)
    own = {"key": key, "instance": number, "flags": said.flags, "mode": said["mode"], "dscp": said.dscp}
    return {"sw_if_index": world.add(f"ipip{number}", "ipip", "IPIP tunnel device", is_ethernet=False, own=own).index}


@handles
def ipip_del_tunnel(world, m):
    one = world.get(m.sw_if_index, "NO_SUCH_ENTRY", kind="ipip")
    world.instances["ipip"].remove(one.own["instance"])
    world.remove(one)
    return {}


@handles
def ipip_tunnel_dump(world, m):
    found = []
    for one in world.interfaces.values():
        if one.kind == "ipip" and m.sw_if_index in {one.index, NONE}:
            src, dst, table = one.own["key"]
            more = {name: one.own[name] for name in ("instance", "flags", "mode", "dscp")}
            found.append({"tunnel": {"src": src, "dst": dst, "sw_if_index": one.index, "table_id": table, **more}})
    return found


def public_key(private):
    """The public key of a private one, as VPP computes it (X25519)."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
