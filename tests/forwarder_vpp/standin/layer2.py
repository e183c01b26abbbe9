"""Cross-connects and bridge domains."""

from .handlers import handles
from .world import NONE, PORTS, Domain, Refusal

_LARGEST_DOMAIN = 0xFFFFFF


@handles
def sw_interface_set_l2_xconnect(world, m):
    one = world.get(m.rx_sw_if_index)
    if not m.enable:
        world.leave(one)
        return {}
    world.get(m.tx_sw_if_index)
    world.leave(one)
    one.into = m.tx_sw_if_index
    return {}


@handles
def l2_xconnect_dump(world, m):
    found = [one for one in world.interfaces.values() if one.into != NONE]
    return [{"rx_sw_if_index": one.index, "tx_sw_if_index": one.into} for one in found]


@handles
def sw_interface_set_l2_bridge(world, m):
    one = world.get(m.rx_sw_if_index)
    if not isinstance(m.port_type, str):
        raise Refusal("INVALID_VALUE")
    if not m.enable:
        world.leave(one)
        return {}
    if m.bd_id > _LARGEST_DOMAIN:
        raise Refusal("BD_ID_EXCEED_MAX")
    domain = world.domains.setdefault(m.bd_id, Domain(m.bd_id, dict(PORTS)))
    world.leave(one)
    one.domain, one.group = m.bd_id, m.shg
    domain.members.append(one.index)
    return {}


@handles
def bridge_domain_add_del_v2(world, m):
    number = m.bd_id
    if number == NONE and m.is_add:
        number = world.unused("domains", world.domains, _LARGEST_DOMAIN)
    if m.is_add:
        if number in world.domains:
            raise Refusal("BD_ALREADY_EXISTS", bd_id=number)
        if number > _LARGEST_DOMAIN:
            raise Refusal("BD_ID_EXCEED_MAX", bd_id=number)
        world.domains[number] = Domain(number, {name: m[name] for name in PORTS}, m.mac_age, m.bd_tag)
        return {"bd_id": number}
    if number == 0:
        raise Refusal("BD_NOT_MODIFIABLE", bd_id=number)
    if number not in world.domains:
        raise Refusal("NO_SUCH_ENTRY", bd_id=number)
    if world.domains[number].members:
        raise Refusal("BD_IN_USE", bd_id=number)
    del world.domains[number]
    return {"bd_id": number}


@handles
def bridge_domain_dump(world, m):
    if m.sw_if_index != NONE or m.bd_id == 0:
        return []
    return [
        {
            "bd_id": domain.number,
            **domain.does,
            "mac_age": domain.mac_age,
            "bd_tag": domain.tag,
            "bvi_sw_if_index": NONE,
            "uu_fwd_sw_if_index": NONE,
            "sw_if_details": [{"sw_if_index": index, "shg": world.interfaces[index].group} for index in domain.members],
        }
        for domain in world.domains.values()
        if m.bd_id in {domain.number, NONE}
    ]


@handles
def bridge_flags(world, m):
    if m.bd_id == 0:
        raise Refusal("BD_NOT_MODIFIABLE")
    if m.bd_id not in world.domains:
        raise Refusal("NO_SUCH_ENTRY")
    names = {"LEARN": "learn", "FWD": "forward", "FLOOD": "flood", "UU_FLOOD": "uu_flood", "ARP_TERM": "arp_term"}
    names["ARP_UFWD"] = "arp_ufwd"
    does = world.domains[m.bd_id].does
    for flag in m.flags:
        does[names[flag.removeprefix("BRIDGE_API_FLAG_")]] = m.is_set
    bits = zip(("learn", "forward", "flood", "uu_flood", "arp_term", "arp_ufwd"), (1, 2, 4, 8, 16, 32), strict=True)
    return {"resulting_feature_bitmap": sum(bit for name, bit in bits if does[name])}


@handles
def l2_interface_vlan_tag_rewrite(world, m):
    one = world.get(m.sw_if_index)
    if not _is_ethernet(world, one):
        raise Refusal("INVALID_INTERFACE")
    tags = one.sub.get("sub_number_of_tags", 0)
    needed = {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 1, 6: 1, 7: 2, 8: 2}
    if m.vtr_op not in needed:
        raise Refusal("INVALID_ARGUMENT")
    if tags < needed[m.vtr_op]:
        raise Refusal("INVALID_VLAN_TAG_COUNT")
    one.rewrite = {"vtr_op": m.vtr_op, "vtr_push_dot1q": m.push_dot1q, "vtr_tag1": m.tag1, "vtr_tag2": m.tag2}
    if m.vtr_op in {0, 3, 4}:
        one.rewrite = {"vtr_op": m.vtr_op}
    return {}


def _is_ethernet(world, one):
    return (one if one.parent == NONE else world.interfaces[one.parent]).is_ethernet
