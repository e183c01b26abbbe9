"""Tables, routes, neighbors, and cross-connects of packets."""

from .handlers import handles
from .world import NONE, Refusal


def _version(is_ip6):
    return 6 if is_ip6 else 4


def _checked(world, path):
    if path.sw_if_index != NONE and path.sw_if_index not in world.interfaces:
        raise Refusal("NO_MATCHING_INTERFACE")
    version = {"FIB_API_PATH_NH_PROTO_IP4": 4, "FIB_API_PATH_NH_PROTO_IP6": 6}.get(path.proto, 0)
    if version and path.sw_if_index == NONE and (version, path.table_id) not in world.tables:
        raise Refusal("NO_SUCH_FIB")
    return path


@handles
def l3xc_update(world, m):
    said = m.l3xc
    world.get(said.sw_if_index)
    if not said.n_paths:
        raise Refusal("INVALID_VALUE")
    world.l3xc[said.sw_if_index, _version(said.is_ip6)] = [_checked(world, path) for path in said.paths]
    return {"stats_index": 0}


@handles
def l3xc_del(world, m):
    world.get(m.sw_if_index)
    if world.l3xc.pop((m.sw_if_index, _version(m.is_ip6)), None) is None:
        raise Refusal("INVALID_VALUE")
    return {}


@handles
def l3xc_dump(world, m):
    return [
        {"l3xc": {"sw_if_index": index, "is_ip6": False, "paths": paths}}  # VPP leaves the family out
        for (index, _), paths in world.l3xc.items()
        if m.sw_if_index in {index, NONE}
    ]


@handles
def ip_table_add_del(world, m):
    version, number = _version(m.table.is_ip6), m.table.table_id
    if m.is_add:
        world.tables.setdefault((version, number), m.table.name or f"ipv{version}-VRF:{number}")
    elif number:
        world.tables.pop((version, number), None)
        for key in [key for key in world.routes if key[:2] == (version, number)]:
            del world.routes[key]
    return {}


@handles
def ip_table_allocate(world, m):
    version, number = _version(m.table.is_ip6), m.table.table_id
    if number == NONE:
        number = world.unused("tables", {of for _, of in world.tables})
    world.tables.setdefault((version, number), m.table.name or f"ipv{version}-VRF:{number}")
    name = world.tables[version, number]
    return {"table": {"table_id": number, "is_ip6": m.table.is_ip6, "name": name}}


@handles
def ip_table_dump(world, m):
    return [
        {"table": {"table_id": number, "is_ip6": version == 6, "name": name}}
        for (version, number), name in sorted(world.tables.items(), key=lambda one: (one[0][0], one[0][1]))
    ]


@handles
def ip_table_flush(world, m):
    version, number = _version(m.table.is_ip6), m.table.table_id
    if (version, number) not in world.tables:
        raise Refusal("NO_SUCH_FIB")
    for key in [key for key in world.routes if key[:2] == (version, number)]:
        del world.routes[key]
    return {}


@handles
def ip_route_add_del_v2(world, m):
    route = m.route
    network = route.prefix.network
    if (network.version, route.table_id) not in world.tables:
        raise Refusal("NO_SUCH_FIB")
    paths = [_checked(world, path) for path in route.paths]
    key = (network.version, route.table_id, network)
    if m.is_add:
        if not paths:
            raise Refusal("NO_PATHS_IN_ROUTE")
        world.routes[key] = (world.routes.get(key, []) if m.is_multipath else []) + paths
    elif m.is_multipath:
        if not paths:
            raise Refusal("NO_PATHS_IN_ROUTE")
        left = [one for one in world.routes.get(key, []) if not any(_same(one, path) for path in paths)]
        world.routes[key] = left
        if not left:
            del world.routes[key]
    else:
        world.routes.pop(key, None)
    return {"stats_index": 0}


def _same(one, other):
    return (one.sw_if_index, one.nh.address) == (other.sw_if_index, other.nh.address)


@handles
def ip_route_v2_dump(world, m):
    version = _version(m.table.is_ip6)
    return [
        {"route": {"table_id": number, "prefix": network, "paths": paths}}
        for (of, number, network), paths in world.routes.items()
        if (of, number) == (version, m.table.table_id)
    ]


@handles
def ip_neighbor_add_del(world, m):
    said = m.neighbor
    world.get(said.sw_if_index, stats_index=NONE)
    key = (said.sw_if_index, said.ip_address)
    if not m.is_add:
        if world.neighbors.pop(key, None) is None:
            raise Refusal("NO_SUCH_ENTRY", stats_index=NONE)
        return {"stats_index": NONE}
    world.neighbors[key] = {"mac_address": said.mac_address, "flags": said.flags}
    return {}


@handles
def ip_neighbor_dump(world, m):
    version = {"ADDRESS_IP4": 4, "ADDRESS_IP6": 6}.get(m.af, 0)
    return [
        {"neighbor": {"sw_if_index": index, "ip_address": address, **said}}
        for (index, address), said in world.neighbors.items()
        if m.sw_if_index in {index, NONE} and address.version == version
    ]


@handles
def ip_neighbor_flush(world, m):
    version = {"ADDRESS_IP4": 4, "ADDRESS_IP6": 6}.get(m.af, 0)
    if m.sw_if_index != NONE:
        world.get(m.sw_if_index)
    for index, address in list(world.neighbors):
        if m.sw_if_index in {index, NONE} and address.version == version:
            del world.neighbors[index, address]
    return {}


@handles
def ip6nd_send_router_solicitation(world, m):
    world.get(m.sw_if_index)
    return {}


@handles
def arping(world, m):
    world.get(m.sw_if_index)
    return {"reply_count": 0 if m.address not in _answering(world) else 1}


@handles
def want_ping_finished_events(world, m):
    count = m.repeat if m.address in _answering(world) else 0
    world.events.append(("ping_finished_event", {"request_count": m.repeat, "reply_count": count}))
    return {}


def _answering(world):
    """Addresses of neighbors; VPP does not answer itself."""
    return {address for _, address in world.neighbors}
