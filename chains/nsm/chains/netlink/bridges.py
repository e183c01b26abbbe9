"""Bridges and their ports."""

from __future__ import annotations

from .encoding import (
    CREATE,
    EXCL,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MTU,
    INFO_DATA,
    INFO_KIND,
    NEWLINK,
    SETLINK,
    Message,
    attribute,
    link_part,
    number,
    request,
    text,
)

_IFLA_MASTER, _IFLA_BR_MCAST_SNOOPING = 10, 23


def create_bridge(name: str, index: int, *, mtu: int) -> Message:
    """A bridge, down, that floods multicast as a cable would: without a querier there is nothing to snoop on."""
    data = attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
    info = text(INFO_KIND, "bridge") + attribute(INFO_DATA, data)
    body = text(IFLA_IFNAME, name) + number(IFLA_MTU, mtu) + attribute(IFLA_LINKINFO, info)
    return request(NEWLINK, EXCL | CREATE, link_part(index) + body, f"create bridge {name}")


def enslave(index: int, bridge: int) -> Message:
    """Make a link a port of a bridge."""
    return request(SETLINK, 0, link_part(index) + number(_IFLA_MASTER, bridge), "make a link the port of a bridge")


def set_state(index: int, *, up: bool) -> Message:
    """Set a link up or down; its peer sees whether there is a carrier."""
    body = link_part(index, IFF_UP if up else 0, IFF_UP)
    return request(SETLINK, 0, body, f"set the link {'up' if up else 'down'}")
