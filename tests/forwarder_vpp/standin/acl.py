"""Access lists."""

from .handlers import handles
from .world import NONE, Refusal


@handles
def acl_plugin_get_version(world, m):
    return {"major": 1, "minor": 4}


@handles
def acl_add_replace(world, m):
    index = m.acl_index
    for rule in m.r:
        if (
            rule.src_prefix.ip != rule.src_prefix.network.network_address
            or rule.src_prefix.version != rule.dst_prefix.version
        ):
            raise Refusal("INVALID_SRC_ADDRESS", acl_index=index)
        if rule.dst_prefix.ip != rule.dst_prefix.network.network_address:
            raise Refusal("INVALID_DST_ADDRESS", acl_index=index)
        if rule.srcport_or_icmptype_first > rule.srcport_or_icmptype_last:
            raise Refusal("INVALID_VALUE_2", acl_index=index)
        if rule.dstport_or_icmpcode_first > rule.dstport_or_icmpcode_last:
            raise Refusal("INVALID_VALUE_2", acl_index=index)
    if index != NONE and index not in world.acls:
        raise Refusal("NO_SUCH_ENTRY", acl_index=index)
    if index == NONE:
        index = world.acl_pool.take()
    world.acls[index] = (m.tag, list(m.r))
    return {"acl_index": index}


@handles
def acl_del(world, m):
    if m.acl_index not in world.acls:
        raise Refusal("NO_SUCH_ENTRY")
    for place, name in ((0, "INBOUND"), (1, "OUTBOUND")):
        if any(m.acl_index in one.acls[place] for one in world.interfaces.values()):
            raise Refusal(f"ACL_IN_USE_{name}")
    del world.acls[m.acl_index]
    world.acl_pool.free(m.acl_index)
    return {}


@handles
def acl_dump(world, m):
    return [
        {"acl_index": index, "tag": tag, "r": rules}
        for index, (tag, rules) in sorted(world.acls.items())
        if m.acl_index in {index, NONE}
    ]


@handles
def acl_interface_set_acl_list(world, m):
    one = world.get(m.sw_if_index)
    if any(index not in world.acls for index in m.acls):
        raise Refusal("NO_SUCH_ENTRY")
    inward, outward = tuple(m.acls[: m.n_input]), tuple(m.acls[m.n_input :])
    if len(set(inward)) < len(inward) or len(set(outward)) < len(outward):
        raise Refusal("ENTRY_ALREADY_EXISTS")
    one.acls = (inward, outward)
    return {}


@handles
def acl_interface_list_dump(world, m):
    return [
        {"sw_if_index": one.index, "n_input": len(one.acls[0]), "acls": [*one.acls[0], *one.acls[1]]}
        for one in world.interfaces.values()
        if m.sw_if_index in {one.index, NONE}
    ]
