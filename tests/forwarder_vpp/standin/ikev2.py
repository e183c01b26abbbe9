"""IKEv2 profiles; no key is exchanged: a profile that is complete is up once it is initiated."""

from .handlers import handles
from .world import NONE, Refusal


@handles
def ikev2_plugin_get_version(world, m):
    return {"major": 1, "minor": 0}


@handles
def ikev2_profile_add_del(world, m):
    if not m.name:
        raise Refusal("INVALID_VALUE")
    if m.is_add:
        if m.name in world.profiles:
            raise Refusal("UNSPECIFIED")
        world.profiles[m.name] = {"index": len(world.profiles), "udp_encap": False, "natt_disabled": False}
    elif world.profiles.pop(m.name, None) is None:
        raise Refusal("UNSPECIFIED")
    return {}


def _profile(world, name):
    if name not in world.profiles:
        raise Refusal("UNSPECIFIED")
    return world.profiles[name]


@handles
def ikev2_profile_set_auth(world, m):
    profile = _profile(world, m.name)
    if m.auth_method not in {1, 2} or not m.data_len:
        raise Refusal("INVALID_VALUE")
    profile["auth"] = {"method": m.auth_method, "hex": m.is_hex, "data": m.data, "data_len": m.data_len}
    return {}


@handles
def ikev2_profile_set_id(world, m):
    profile = _profile(world, m.name)
    said = {"type": m.id_type, "data_len": m.data_len, "data": m.data[:63].decode(errors="surrogateescape")}
    profile["loc_id" if m.is_local else "rem_id"] = said
    return {}


@handles
def ikev2_profile_set_ts(world, m):
    profile = _profile(world, m.name)
    profile["loc_ts" if m.ts.is_local else "rem_ts"] = dict(m.ts)
    return {}


@handles
def ikev2_profile_set_udp_encap(world, m):
    _profile(world, m.name)["udp_encap"] = True
    return {}


@handles
def ikev2_profile_set_ipsec_udp_port(world, m):
    profile = world.profiles.get(m.name)
    if profile is None:
        raise Refusal("INVALID_VALUE")
    if m.is_set:
        if "ipsec_over_udp_port" in profile:
            raise Refusal("VALUE_EXIST")
        profile["ipsec_over_udp_port"] = m.port
    elif profile.pop("ipsec_over_udp_port", None) is None:
        raise Refusal("INVALID_VALUE")
    return {}


@handles
def ikev2_profile_set_liveness(world, m):
    return {}


@handles
def ikev2_profile_disable_natt(world, m):
    _profile(world, m.name)["natt_disabled"] = True
    return {}


@handles
def ikev2_set_local_key(world, m):
    if m.key_file == "/nowhere":
        raise Refusal("UNSPECIFIED")
    world.local_key = m.key_file
    return {}


@handles
def ikev2_set_tunnel_interface(world, m):
    world.get(m.sw_if_index)
    _profile(world, m.name)["tun_itf"] = m.sw_if_index
    return {}


@handles
def ikev2_set_responder(world, m):
    profile = _profile(world, m.name)
    profile["responder"] = dict(m.responder)
    return {}


@handles
def ikev2_set_ike_transforms(world, m):
    _profile(world, m.name)["ike_ts"] = dict(m.tr)
    return {}


@handles
def ikev2_set_esp_transforms(world, m):
    _profile(world, m.name)["esp_ts"] = dict(m.tr)
    return {}


@handles
def ikev2_set_sa_lifetime(world, m):
    profile = _profile(world, m.name)
    profile |= {name: m[name] for name in ("lifetime", "lifetime_maxdata", "lifetime_jitter", "handover")}
    return {}


@handles
def ikev2_initiate_sa_init(world, m):
    profile = _profile(world, m.name)
    if "responder" not in profile:
        raise Refusal("UNSPECIFIED")
    profile["initiated"] = True
    return {}


@handles
def ikev2_profile_dump(world, m):
    kept = (
        "udp_encap",
        "natt_disabled",
        "loc_id",
        "rem_id",
        "loc_ts",
        "rem_ts",
        "responder",
        "ike_ts",
        "esp_ts",
        "auth",
    )
    kept += ("lifetime", "lifetime_maxdata", "lifetime_jitter", "handover", "ipsec_over_udp_port", "tun_itf")
    nowhere = {"ipsec_over_udp_port": 0xFFFF, "tun_itf": NONE, "responder": {"sw_if_index": NONE, "addr": "0.0.0.0"}}
    return [
        {"profile": {**nowhere, "name": name, **{key: profile[key] for key in kept if key in profile}}}
        for name, profile in world.profiles.items()
    ]


@handles
def ikev2_sa_dump(world, m):
    return []


@handles
def ikev2_sa_v2_dump(world, m):
    return []


@handles
def ikev2_sa_v3_dump(world, m):
    """One for each profile that was initiated: both sides are taken to agree."""
    return [
        {"sa": {"sa_index": index, "profile_name": name, "state": "AUTHENTICATED"}}
        for index, (name, profile) in enumerate(world.profiles.items())
        if profile.get("initiated")
    ]


@handles
def ikev2_child_sa_dump(world, m):
    return []


@handles
def ikev2_child_sa_v2_dump(world, m):
    return []


@handles
def ikev2_initiate_del_ike_sa(world, m):
    raise Refusal("UNSPECIFIED")


@handles
def ikev2_initiate_del_child_sa(world, m):
    raise Refusal("UNSPECIFIED")


@handles
def ikev2_initiate_rekey_child_sa(world, m):
    raise Refusal("UNSPECIFIED")


@handles
def ipsec_sa_v3_dump(world, m):
    return []


@handles
def ipsec_sa_v5_dump(world, m):
    return []


@handles
def ipsec_tunnel_protect_update(world, m):
    world.get(m.tunnel.sw_if_index)
    raise Refusal("INVALID_VALUE")  # there is no security association that it could name


@handles
def ipsec_tunnel_protect_del(world, m):
    world.get(m.sw_if_index)
    raise Refusal("NO_SUCH_ENTRY")


@handles
def ipsec_tunnel_protect_dump(world, m):
    return []
