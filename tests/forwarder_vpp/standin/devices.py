"""Interfaces toward workloads and the host: tap, af_packet, AF_XDP, memif."""

from .handlers import handles
from .world import NONE, Refusal

_NO_MAC = "00:00:00:00:00:00"
_LONGEST_LINK = 15


@handles
def tap_create_v3(world, m):
    number = world.instance("tap", m.id, "INVALID_INTERFACE")
    if not world.vhost:
        world.instances["tap"].remove(number)
        raise Refusal("SYSCALL_ERROR_1", sw_if_index=NONE)
    is_tun = "TAP_API_FLAG_TUN" in m.tap_flags
    name = m.host_if_name if m.host_if_name_set else f"tap{number}"
    own = {
        "id": number,
        "host_if_name": name,
        "host_namespace": m.host_namespace if m.host_namespace_set else "",
        "tap_flags": m.tap_flags,
        "queues": max(1, m.num_rx_queues),
        "rx_ring_sz": m.rx_ring_sz,
        "tx_ring_sz": m.tx_ring_sz,
        "host_mac_addr": m.host_mac_addr if m.host_mac_addr_set else _NO_MAC,
        "host_mtu_size": m.host_mtu_size if m.host_mtu_set else 0,
    }
    mac = {} if is_tun or m.use_random_mac else {"mac": m.mac_address}
    device = "tun" if is_tun else "virtio"
    made = world.add(f"{'tun' if is_tun else 'tap'}{number}", "tap", device, is_ethernet=not is_tun, own=own, **mac)
    made.tag = m.tag
    return {"sw_if_index": made.index}


@handles
def tap_delete_v2(world, m):
    one = world.get(m.sw_if_index, kind="tap")
    world.instances["tap"].remove(one.own["id"])
    world.remove(one)
    return {}


@handles
def sw_interface_tap_v2_dump(world, m):
    found = [one for one in world.interfaces.values() if one.kind == "tap" and m.sw_if_index in {one.index, NONE}]
    return [
        {
            "sw_if_index": one.index,
            "id": one.own["id"],
            "tx_ring_sz": one.own["tx_ring_sz"],
            "rx_ring_sz": one.own["rx_ring_sz"],
            "host_mtu_size": one.own["host_mtu_size"],
            "host_mac_addr": one.own["host_mac_addr"],
            "tap_flags": one.own["tap_flags"],
            "dev_name": one.name,
            "host_if_name": one.own["host_if_name"],
            "host_namespace": one.own["host_namespace"],
        }
        for one in found
    ]


@handles
def af_packet_create_v3(world, m):
    return _af_packet(world, m, m.mode == "AF_PACKET_API_MODE_IP")


@handles
def af_packet_create_v2(world, m):
    return _af_packet(world, m, is_ip=False)


def _af_packet(world, m, is_ip):
    for one in world.interfaces.values():
        if one.kind == "af_packet" and one.own["host_if_name"] == m.host_if_name:
            raise Refusal("IF_ALREADY_EXISTS", sw_if_index=one.index)
    if not 0 < len(m.host_if_name) <= _LONGEST_LINK or (world.links is not None and m.host_if_name not in world.links):
        raise Refusal("INVALID_INTERFACE", sw_if_index=NONE)
    own = {"host_if_name": m.host_if_name, "queues": max(1, m.num_rx_queues)}
    more = {} if m.use_random_hw_addr or is_ip else {"mac": m.hw_addr}
    device = "af-packet"
    name = f"host-{m.host_if_name}"
    return {
        "sw_if_index": world.add(name, "af_packet", device, is_ethernet=not is_ip, link=True, own=own, **more).index
    }


@handles
def af_packet_delete(world, m):
    for one in list(world.interfaces.values()):
        if one.kind == "af_packet" and one.own["host_if_name"] == m.host_if_name:
            world.remove(one)
            return {}
    raise Refusal("SYSCALL_ERROR_1")


@handles
def af_packet_dump(world, m):
    found = [one for one in world.interfaces.values() if one.kind == "af_packet"]
    return [{"sw_if_index": one.index, "host_if_name": one.own["host_if_name"]} for one in found]


@handles
def af_packet_set_l4_cksum_offload(world, m):
    if m.sw_if_index not in world.interfaces or world.interfaces[m.sw_if_index].kind != "af_packet":
        raise Refusal("INVALID_INTERFACE")
    return {}


@handles
def af_xdp_create_v3(world, m):
    if world.links is not None and m.host_if not in world.links:
        raise Refusal("SYSCALL_ERROR_1", sw_if_index=NONE)
    number = world.instance("af_xdp")
    name = m.name or f"{m.host_if}/0"
    own = {"host_if_name": m.host_if, "queues": max(1, m.rxq_num), "instance": number}
    return {"sw_if_index": world.add(name, "af_xdp", "AF_XDP interface", link=True, own=own).index}


@handles
def af_xdp_delete(world, m):
    world.remove(world.get(m.sw_if_index, kind="af_xdp"))
    return {}


@handles
def memif_socket_filename_add_del_v2(world, m):
    number = m.socket_id
    if number == 0:
        raise Refusal("INVALID_ARGUMENT", socket_id=0)
    if m.is_add and number == NONE:
        number = world.unused("sockets", world.sockets)
    if number == NONE:
        raise Refusal("INVALID_ARGUMENT", socket_id=number)
    if not m.is_add:
        if number not in world.sockets:
            raise Refusal("INVALID_ARGUMENT", socket_id=number)
        if any(one.kind == "memif" and one.own["socket_id"] == number for one in world.interfaces.values()):
            raise Refusal("UNEXPECTED_INTF_STATE", socket_id=number)
        del world.sockets[number]
        return {"socket_id": number}
    name = m.socket_filename
    if not name:
        raise Refusal("INVALID_ARGUMENT", socket_id=number)
    if not name.startswith(("/", "@", "abstract:", "tcp:", "udp:")):
        name = f"/run/vpp/{name}"
    if world.sockets.get(number, name) != name:
        raise Refusal("ENTRY_ALREADY_EXISTS", socket_id=number)
    world.sockets[number] = name
    return {"socket_id": number}


@handles
def memif_socket_filename_dump(world, m):
    return [{"socket_id": number, "socket_filename": world.sockets[number]} for number in sorted(world.sockets)]


@handles
def memif_create_v2(world, m):
    ring = m.ring_size or 1024
    if ring & (ring - 1):
        raise Refusal("INVALID_ARGUMENT")
    if m.socket_id not in world.sockets:
        raise Refusal("INVALID_ARGUMENT")
    is_master = m.role == "MEMIF_ROLE_API_MASTER"
    beside = [one for one in world.interfaces.values() if one.kind == "memif" and one.own["socket_id"] == m.socket_id]
    if any(one.own["id"] == m.id or one.own["is_master"] != is_master for one in beside):
        raise Refusal("SUBIF_ALREADY_EXISTS")
    if m.mode not in {"MEMIF_MODE_API_ETHERNET", "MEMIF_MODE_API_IP"}:
        raise Refusal("SYSCALL_ERROR_2")
    own = {
        "id": m.id,
        "socket_id": m.socket_id,
        "is_master": is_master,
        "mode": m.mode,
        "zero_copy": not m.no_zero_copy,
        "ring_size": ring,
        "buffer_size": m.buffer_size or 2048,
        "secret": m.secret,
    }
    is_ethernet = m.mode == "MEMIF_MODE_API_ETHERNET"
    more = {} if m.hw_addr == _NO_MAC or not is_ethernet else {"mac": m.hw_addr}
    made = world.add(f"memif{m.socket_id}/{m.id}", "memif", "memif", is_ethernet=is_ethernet, own=own, **more)
    return {"sw_if_index": made.index}


@handles
def memif_delete(world, m):
    world.remove(world.get(m.sw_if_index, kind="memif"))
    return {}


@handles
def memif_dump(world, m):
    return [
        {
            "sw_if_index": one.index,
            "hw_addr": one.mac,
            "id": one.own["id"],
            "role": "MEMIF_ROLE_API_MASTER" if one.own["is_master"] else "MEMIF_ROLE_API_SLAVE",
            "mode": one.own["mode"],
            "zero_copy": one.own["zero_copy"] and _is_agreed(one),
            "socket_id": one.own["socket_id"],
            "ring_size": one.own["ring_size"] if _is_agreed(one) else 1,
            "buffer_size": one.own["buffer_size"] if _is_agreed(one) else 0,
            "flags": [
                name
                for name, up in (("IF_STATUS_API_FLAG_ADMIN_UP", one.admin), ("IF_STATUS_API_FLAG_LINK_UP", one.link))
                if up
            ],
            "if_name": one.name,
        }
        for one in world.interfaces.values()
        if one.kind == "memif"
    ]


def _is_agreed(one):
    """Whether VPP shows what was agreed with the other side: it does so for the slave only."""
    return one.link and not one.own["is_master"]
