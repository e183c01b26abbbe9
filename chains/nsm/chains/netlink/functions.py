"""Single changes of virtual functions and their interfaces, encoded (rtnetlink)."""

from __future__ import annotations

import errno
import struct

from .encoding import (
    IFF_UP,
    IFLA_IFNAME,
    SETLINK,
    Message,
    attribute,
    link_part,
    number,
    request,
    text,
)

_IFLA_ADDRESS, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 1, 20, 28
_IFLA_VFINFO_LIST, _VF_INFO, _VF_MAC, _VF_VLAN = 22, 1, 1, 2
_NESTED = 0x8000
_MAC, _VLAN = struct.Struct("=I32s"), struct.Struct("=III")
NO_MAC = "00:00:00:00:00:00"
_UNSUPPORTED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EADDRNOTAVAIL})


def set_function_mac(card: int, function: int, mac: str) -> Message:
    """Have the card of index `card` give a virtual function its MAC; `NO_MAC`: any, which not every card knows."""
    value = _MAC.pack(function, bytes.fromhex(mac.replace(":", "")))
    fine = _UNSUPPORTED if mac == NO_MAC else frozenset[int]()
    return _function(card, attribute(_VF_MAC, value), f"set MAC {mac} of virtual function {function}", fine)


def set_function_vlan(card: int, function: int, vlan: int) -> Message:
    """Have the card tag the frames of a virtual function, and strip the tag of those for it; 0: no tag."""
    fine = frozenset[int]() if vlan else _UNSUPPORTED
    value = _VLAN.pack(function, vlan, 0)
    return _function(card, attribute(_VF_VLAN, value), f"set VLAN {vlan} of virtual function {function}", fine)


def move(index: int, namespace: int, name: str) -> Message:
    """Move a link to the namespace of an open descriptor, and name it there. It is down then, without addresses."""
    body = link_part(index) + number(_IFLA_NET_NS_FD, namespace) + text(IFLA_IFNAME, name)
    return request(SETLINK, 0, body, f"move a virtual function's interface, to be {name}")


def set_down(index: int, alias: str | None = None) -> Message:
    """Set a link down; write who it belongs to, or remove that with an empty `alias`."""
    body = link_part(index, 0, IFF_UP) + (attribute(_IFLA_IFALIAS, alias.encode()) if alias is not None else b"")
    return request(SETLINK, 0, body, "set the link down")


def set_up_again(index: int) -> Message:
    """Set a link up, and nothing else."""
    return request(SETLINK, 0, link_part(index, IFF_UP), "set the link up")


def set_mac(index: int, mac: str) -> Message:
    """Change a link's own MAC; refusals are fine, since the card may have changed it already."""
    body = link_part(index) + attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return request(SETLINK, 0, body, f"set MAC {mac}", fine=_UNSUPPORTED | {errno.EPERM, errno.EBUSY})


def _function(card: int, change: bytes, about: str, fine: frozenset[int]) -> Message:
    body = link_part(card) + attribute(_IFLA_VFINFO_LIST | _NESTED, attribute(_VF_INFO | _NESTED, change))
    return request(SETLINK, 0, body, about, fine=fine)
