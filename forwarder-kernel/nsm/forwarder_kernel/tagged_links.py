"""The 802.1q sub-interfaces of uplinks: made with the first wire of a tag, shared, removed with the last."""

from __future__ import annotations

import errno
import secrets
from dataclasses import dataclass

from nsm.chains.core import Conflict, Unsupported
from nsm.chains.forwarding.sides import Breakout
from nsm.chains.netlink import Link, LinkEnd, Namespace, NetlinkError, create_vlan, delete_link, set_up

from . import underlay

_FIRST_INDEX, _INDEXES, _MAX_NAME = 1 << 20, 1 << 29, 15
_GONE = frozenset({errno.ENODEV})


@dataclass(slots=True)
class _Tagged:
    index: int
    users: int = 0


class TaggedLinks:
    """The node's links that breakouts are on. Used by one thread only.

    An existing sub-interface is used. Its alias names its owner: one of this owner, also of an earlier
    process, is removed with its last wire; one that another program made stays.
    """

    def __init__(self, owner: str) -> None:
        self._mark = f"nsm {owner} VLAN "
        self._links: dict[Breakout, _Tagged] = {}

    def take(self, own: Namespace, breakout: Breakout) -> int:
        """The index of the link; give it back. Raises `Conflict` or `Unsupported` if there is none."""
        uplink = underlay.uplink(own.socket, breakout.uplink)
        if not breakout.vlan:
            return uplink.index
        known = self._links.get(breakout)
        if known is None or own.socket.link(index=known.index) is None:
            known = self._links[breakout] = self._tagged(own, uplink, breakout.vlan)
        known.users += 1
        return known.index

    def give(self, own: Namespace, breakout: Breakout) -> None:
        """End one use."""
        known = self._links.get(breakout)
        if known is not None:
            known.users -= 1
            if known.users <= 0:
                del self._links[breakout]
                self.clear(own)

    def clear(self, own: Namespace) -> None:
        """Remove the sub-interfaces of this owner that nothing is on.

        Wires of an earlier process are in no list of this one; the kernel shows them by their hardware addresses.
        """
        taken = {known.index for known in self._links.values()}
        ours = [each.index for each in own.socket.links(self._mark) if each.kind == "vlan"]
        idle = [index for index in ours if index not in taken and not own.socket.stations(index)]
        own.socket.apply([delete_link(index) for index in idle], ignore=_GONE)

    def _tagged(self, own: Namespace, uplink: Link, vlan: int) -> _Tagged:
        name = _name(uplink, vlan)
        there = own.socket.link(name=name)
        if there is not None:
            if there.kind != "vlan" or there.lower != uplink.index or there.details.get("IFLA_VLAN_ID") != vlan:
                raise Conflict(f"interface {name} of this node is not VLAN {vlan} of {uplink.name}")
            own.socket.apply([set_up(there.index, there.alias)])
            return _Tagged(there.index)
        return _Tagged(self._create(own, uplink, name, vlan))

    def _create(self, own: Namespace, uplink: Link, name: str, vlan: int) -> int:
        index = _FIRST_INDEX + secrets.randbelow(_INDEXES)
        try:
            own.socket.apply([create_vlan(LinkEnd(name, index, "", own.descriptor), uplink.index, vlan)])
        except NetlinkError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise Unsupported(f"this kernel has no 802.1q, which VLAN {vlan} of {uplink.name} needs") from error
            raise
        own.refuse_advertisements(name)  # it is there for wires, and not for the node itself
        try:
            own.socket.apply([set_up(index, f"{self._mark}{vlan} of {uplink.name}")])
        except NetlinkError:
            own.socket.apply([delete_link(index)], ignore=_GONE)
            raise
        return index


def _name(uplink: Link, vlan: int) -> str:
    name = f"{uplink.name}.{vlan}"
    return name if len(name) <= _MAX_NAME else f"if{uplink.index}.{vlan}"
