"""Interfaces in general: state, MTU, addresses, tags, queues, sub-interfaces."""

from .handlers import handles
from .world import NONE, Refusal, flags_of

_SHOWN = ("sub_id", "sub_number_of_tags", "sub_outer_vlan_id", "sub_inner_vlan_id", "sub_if_flags")


@handles
def sw_interface_dump(world, m):
    if not m.name_filter_valid and m.sw_if_index not in {0, NONE}:
        return [_details(one) for one in world.interfaces.values() if one.index == m.sw_if_index]
    wanted = m.name_filter.lower() if m.name_filter_valid else ""
    return [
        _details(world.interfaces[index])
        for index in sorted(world.interfaces)
        if wanted in world.interfaces[index].name.lower()
    ]


def _details(one):
    return {
        "sw_if_index": one.index,
        "sup_sw_if_index": one.index if one.parent == NONE else one.parent,
        "l2_address": one.mac if one.parent == NONE else "00:00:00:00:00:00",
        "flags": flags_of(one),
        "type": "IF_API_TYPE_HARDWARE" if one.parent == NONE else "IF_API_TYPE_SUB",
        "link_duplex": one.duplex,
        "link_speed": one.speed,
        "link_mtu": one.link_mtu,
        "mtu": one.mtu,
        **{name: one.sub[name] for name in _SHOWN if name in one.sub},
        **one.rewrite,
        "interface_name": one.name,
        "interface_dev_type": one.device,
        "tag": one.tag,
    }


@handles
def sw_interface_set_flags(world, m):
    one = world.get(m.sw_if_index)
    up = "IF_STATUS_API_FLAG_ADMIN_UP" in m.flags
    if up and one.parent != NONE and not world.interfaces[one.parent].admin:
        raise Refusal("UNSPECIFIED")
    world.set_admin(one, up)
    if one.kind == "memif":
        world.set_link(one.index, up and world.autolink)
    elif one.kind in {"tap", "loopback", "wireguard", "vxlan", "ipip"}:
        world.set_link(one.index, up)
    for other in world.interfaces.values():
        if other.parent == one.index:
            other.link = one.link
            if not up:
                world.set_admin(other, up)
    return {}


@handles
def sw_interface_set_mtu(world, m):
    world.get(m.sw_if_index).mtu = list(m.mtu)
    return {}


@handles
def hw_interface_set_mtu(world, m):
    one = world.get(m.sw_if_index)
    if one.parent != NONE:
        raise Refusal("INVALID_VALUE")
    if not one.is_ethernet:
        raise Refusal("FEATURE_DISABLED")
    if one.kind == "loopback":
        raise Refusal("UNSUPPORTED")
    one.link_mtu = m.mtu
    one.mtu[0] = m.mtu
    return {}


@handles
def sw_interface_add_del_address(world, m):
    one = world.get(m.sw_if_index)
    if m.del_all:
        one.addresses.clear()
        return {}
    if m.is_add:
        _add_address(world, one, m.prefix)
    elif m.prefix in one.addresses:
        one.addresses.remove(m.prefix)
    else:
        raise Refusal("ADDRESS_NOT_FOUND_FOR_INTERFACE")
    return {}


def _add_address(world, one, prefix):
    table = one.tables[prefix.version]
    for other in world.interfaces.values():
        for known in other.addresses:
            same_table = known.version == prefix.version and other.tables[known.version] == table
            if same_table and (prefix.ip in known.network or known.ip in prefix.network):
                if other is one and known.ip != prefix.ip and known.network == prefix.network:
                    continue
                raise Refusal("ADDRESS_IN_USE" if prefix.version == 4 else "DUPLICATE_IF_ADDRESS")
    one.addresses.append(prefix)
    if prefix.version == 6:
        one.ip6 = True


@handles
def ip_address_dump(world, m):
    one = world.interfaces.get(m.sw_if_index)
    version = 6 if m.is_ipv6 else 4
    found = [] if one is None else [prefix for prefix in one.addresses if prefix.version == version]
    return [{"sw_if_index": m.sw_if_index, "prefix": prefix} for prefix in found]


@handles
def sw_interface_tag_add_del(world, m):
    one = world.get(m.sw_if_index)
    if m.is_add and not m.tag:
        raise Refusal("INVALID_VALUE")
    one.tag = m.tag if m.is_add else ""
    return {}


@handles
def sw_interface_set_table(world, m):
    one, version = world.get(m.sw_if_index), 6 if m.is_ipv6 else 4
    if (version, m.vrf_id) not in world.tables:
        raise Refusal("NO_SUCH_FIB")
    if any(prefix.version == version for prefix in one.addresses):
        raise Refusal("ADDRESS_FOUND_FOR_INTERFACE")
    one.tables[version] = m.vrf_id
    return {}


@handles
def sw_interface_get_table(world, m):
    return {"vrf_id": world.get(m.sw_if_index, vrf_id=NONE).tables[6 if m.is_ipv6 else 4]}


@handles
def sw_interface_set_unnumbered(world, m):
    one = world.get(m.unnumbered_sw_if_index)
    if m.is_add:
        if world.get(m.sw_if_index).tables != one.tables:
            raise Refusal("UNEXPECTED_INTF_STATE")
        one.unnumbered = m.sw_if_index
    else:
        one.unnumbered = NONE
    return {}


@handles
def ip_unnumbered_dump(world, m):
    found = [one for one in world.interfaces.values() if one.unnumbered != NONE]
    if m.sw_if_index != NONE:
        found = [one for one in found if one.index == m.sw_if_index]
    return [{"sw_if_index": one.index, "ip_sw_if_index": one.unnumbered} for one in found]


@handles
def sw_interface_set_mac_address(world, m):
    one = world.get(m.sw_if_index)
    if one.kind not in {"loopback", "tap", "af_packet"}:
        raise Refusal("UNIMPLEMENTED")
    one.mac = m.mac_address
    return {}


@handles
def sw_interface_get_mac_address(world, m):
    one = world.get(m.sw_if_index)
    return {"mac_address": (one if one.parent == NONE else world.interfaces[one.parent]).mac}


@handles
def sw_interface_set_promisc(world, m):
    one = world.get(m.sw_if_index)
    if not one.is_ethernet:
        raise Refusal("INVALID_VALUE")
    if one.kind in {"loopback", "af_packet"}:
        raise Refusal("UNSPECIFIED")
    one.promiscuous = m.promisc_on
    return {}


@handles
def sw_interface_set_rx_mode(world, m):
    one = world.get(m.sw_if_index)
    if one.parent != NONE:
        raise Refusal("INVALID_VALUE")
    one.own["rx_mode"] = m.mode
    return {}


@handles
def sw_interface_set_rx_placement(world, m):
    one = world.get(m.sw_if_index)
    if one.parent != NONE:
        raise Refusal("INVALID_VALUE")
    if m.queue_id >= one.own.get("queues", 0) or (m.worker_id and not m.is_main):
        raise Refusal("UNIMPLEMENTED")
    return {}


@handles
def sw_interface_rx_placement_dump(world, m):
    found = [one for one in world.interfaces.values() if m.sw_if_index in {one.index, NONE} and one.parent == NONE]
    return [
        {"sw_if_index": one.index, "queue_id": queue, "worker_id": 0, "mode": one.own.get("rx_mode", 2)}
        for one in found
        for queue in range(one.own.get("queues", 0))
    ]


@handles
def create_loopback_instance(world, m):
    wanted = m.user_instance if m.is_specified else NONE
    if wanted != NONE and wanted in world.instances.get("loopback", ()):
        raise Refusal("INVALID_REGISTRATION", sw_if_index=NONE)
    number = world.instance("loopback", wanted)
    more = {} if m.mac_address == "00:00:00:00:00:00" else {"mac": m.mac_address}
    made = world.add(f"loop{number}", "loopback", "Loopback", own={"instance": number}, **more)
    made.mac = made.mac if more else f"de:ad:00:00:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {"sw_if_index": made.index}


@handles
def create_loopback(world, m):
    number = world.instance("loopback")
    mac = (
        m.mac_address
        if m.mac_address != "00:00:00:00:00:00"
        else f"de:ad:00:00:{number >> 8 & 255:02x}:{number & 255:02x}"
    )
    made = world.add(f"loop{number}", "loopback", "Loopback", own={"instance": number}, mac=mac)
    return {"sw_if_index": made.index}


@handles
def delete_loopback(world, m):
    one = world.get(m.sw_if_index, kind="loopback")
    world.instances["loopback"].remove(one.own["instance"])
    world.remove(one)
    return {}


@handles
def create_vlan_subif(world, m):
    parent = world.get(m.sw_if_index)
    if parent.parent != NONE:
        raise Refusal("INVALID_SW_IF_INDEX", sw_if_index=NONE)
    flags = ["SUB_IF_API_FLAG_ONE_TAG", "SUB_IF_API_FLAG_EXACT_MATCH"]
    return _sub_interface(world, parent, m.vlan_id, m.vlan_id, 0, flags)


@handles
def create_subif(world, m):
    parent = world.get(m.sw_if_index)
    return _sub_interface(world, parent, m.sub_id, m.outer_vlan_id, m.inner_vlan_id, m.sub_if_flags)


def _sub_interface(world, parent, number, outer, inner, flags):
    if any(one.parent == parent.index and one.sub["sub_id"] == number for one in world.interfaces.values()):
        raise Refusal("VLAN_ALREADY_EXISTS", sw_if_index=NONE)
    sub = {
        "sub_id": number,
        "sub_number_of_tags": ("SUB_IF_API_FLAG_ONE_TAG" in flags) + 2 * ("SUB_IF_API_FLAG_TWO_TAGS" in flags),
        "sub_outer_vlan_id": outer,
        "sub_inner_vlan_id": inner,
        "sub_if_flags": flags,
    }
    more = {"mtu": [0, 0, 0, 0], "link_mtu": parent.link_mtu, "mac": parent.mac, "link": parent.link}
    made = world.add(f"{parent.name}.{number}", "sub", parent.device, parent=parent.index, sub=sub, **more)
    return {"sw_if_index": made.index}


@handles
def delete_subif(world, m):
    one = world.get(m.sw_if_index)
    if one.parent == NONE:
        raise Refusal("INVALID_SW_IF_INDEX")
    world.remove(one)
    return {}


@handles
def feature_gso_enable_disable(world, m):
    world.get(m.sw_if_index).own["gso"] = m.enable_disable
    return {}


@handles
def sw_interface_ip6_enable_disable(world, m):
    one = world.get(m.sw_if_index)
    if one.ip6 == m.enable and m.enable:
        raise Refusal("VALUE_EXIST")
    one.ip6 = m.enable
    return {}


@handles
def sw_interface_ip6nd_ra_config(world, m):
    one = world.get(m.sw_if_index)
    if not one.ip6:
        raise Refusal("IP6_NOT_ENABLED")
    one.own["ra_suppressed"] = bool(m.suppress) and not m.is_no
    return {}


@handles
def sw_interface_set_interface_name(world, m):
    one = world.get(m.sw_if_index)
    if not m.name:
        raise Refusal("INVALID_VALUE")
    if any(other.name == m.name for other in world.interfaces.values()):
        raise Refusal("INVALID_SW_IF_INDEX")
    one.name = m.name
    return {}


@handles
def sw_interface_set_tx_placement(world, m):
    one = world.get(m.sw_if_index)
    if one.parent != NONE:
        raise Refusal("INVALID_VALUE")
    return {}


@handles
def sw_interface_tx_placement_get(world, m):
    found = [one for one in world.interfaces.values() if one.own.get("queues")]
    if not found:
        raise Refusal("NO_SUCH_ENTRY")
    return [
        {"sw_if_index": one.index, "queue_id": 0, "shared": 0, "threads": [0]}
        for one in found
        if m.sw_if_index in {one.index, NONE}
    ]
