"""Makes, adopts and changes wires: the dataplane's part in the kernel's thread."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from nsm.chains.core import Conflict
from nsm.chains.elements.underlay import read as read_underlay
from nsm.chains.model.networks import Networks

from . import default_routes, end_changes
from .devices import Device
from .ends import Place, Wire, check_own_namespace
from .live_wire import LiveEnd, LiveWire
from .netlink import Message, Namespace, Namespaces, NetlinkError, Traffic, delete_link, set_mtu, set_up
from .removal import GONE

_FIRST_INDEX, _INDEXES = 1 << 20, 1 << 29
_INDEX_TRIES, _LONGEST_ALIAS = 4, 255
_SETTLING_AT_ONCE = 0.01
"""Seconds for which a wire is waited for while others wait too."""


class WireMaker:
    """The wires of one owner, who is written into the alias of everything; all but `alias_of` runs in the thread."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._aliases: set[str] = set()
        """Those of the wires that this process made or adopted."""

    def alias_of(self, connection_id: str) -> str:
        """What is written on both ends; the kernel takes 255 bytes, so of a long id there is only its digest."""
        alias = f"nsm {self._owner} {connection_id}"
        if len(alias.encode()) <= _LONGEST_ALIAS:
            return alias
        return f"nsm {self._owner} {hashlib.sha256(connection_id.encode()).hexdigest()}"

    def create(self, spaces: Namespaces, wire: Wire, alias: str, device: Device) -> LiveWire:
        """See `Dataplane.create`."""
        begin = time.perf_counter()
        with contextlib.ExitStack() as undo:
            namespaces = []
            for place in wire.places:
                namespaces.append(spaces.take(place.path))
                undo.callback(spaces.give, namespaces[-1])
            _protect_node(spaces.own, wire, namespaces)
            device.take(spaces.own)
            undo.callback(device.give, spaces.own)
            live = self._make(spaces.own, wire, namespaces, alias, device)
            undo.pop_all()
        for end in live.ends:
            spaces.identify(end.namespace)
            end.number, end.handle = end.namespace.number, end.namespace.handle
        self._aliases.add(alias)
        live.seconds = time.perf_counter() - begin
        return live

    def change(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> None:
        """See `Dataplane.change`."""
        _protect_node(spaces.own, wire, [end.namespace for end in live.ends])
        before = [settings for _, _, settings in live.sides()]
        for (end, mac, after), now in zip(live.sides(wire), before, strict=True):
            messages = end_changes.differences(end.namespace.socket, end.index, wire, now, after, mac)
            if wire.mtu and wire.mtu != live.wire.mtu:
                messages.insert(0, set_mtu(end.index, wire.mtu))
            if after.proxy_arp != now.proxy_arp:
                messages.insert(0, set_up(end.index, live.alias, proxy_arp=after.proxy_arp))
            _apply(live, end, messages)
            families = {prefix.version for prefix, _ in after.defaults}
            gone = [route for route in now.defaults if route[0].version not in families]
            default_routes.remove(end.namespace.socket, end.index, gone)
        if wire.mtu != live.wire.mtu:
            _refuse_advertisements(live)  # below 1280 there was no IPv6
        live.wire = wire
        settle(live, _SETTLING_AT_ONCE)

    def remake(self, spaces: Namespaces, live: LiveWire) -> bool:
        """See `Dataplane.remake`."""
        if live.device.process is not None or not self.knows(live):
            return False
        with contextlib.ExitStack() as undo:
            namespaces = []
            for end in live.ends:
                namespace = spaces.again(end.handle) if end.is_loose else end.namespace
                if namespace is None:
                    return False
                if end.is_loose:
                    undo.callback(spaces.give, namespace)
                namespaces.append(namespace)
                end.renamed = ""
            held = LiveWire(live.wire, tuple(map(_held, live.ends, namespaces)), live.alias, live.device)
            _protect_node(spaces.own, held.wire, namespaces)
            for end in held.ends:  # one may be left, or have been moved elsewhere
                end.namespace.socket.apply([delete_link(end.index)], ignore=GONE)
            live.device.make(spaces.own, namespaces[0], held.wire, [end.link for end in held.ends])
            _finish(held)
        return True

    def traffic(self, spaces: Namespaces, live: LiveWire) -> list[Traffic | None]:
        """See `Dataplane.traffic`."""
        is_there = self.knows(live)  # else its namespaces may be closed by now
        return [_passed(spaces.own, end) if is_there else None for end in live.ends]

    def knows(self, live: LiveWire) -> bool:
        """Whether it was not removed meanwhile."""
        return live.alias in self._aliases

    def let_go(self, spaces: Namespaces, live: LiveWire) -> None:
        """See `Dataplane.let_go`."""
        if live.device.process is not None or live.alias not in self._aliases:
            return
        for end in live.ends:
            if not end.is_loose and end.number is not None:  # without a number it could not be removed any more
                end.is_loose = True
                spaces.give(end.namespace)

    def hold_again(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> bool:
        """See `Dataplane.hold_again`."""
        names = [end.place.name for end in live.ends]
        if [place.name for place in wire.places] != names:
            return False
        for end, place in zip(live.ends, wire.places, strict=True):
            namespace = spaces.take(place.path)
            is_there = _is_end(namespace, end, live.alias) if end.is_loose else namespace is end.namespace
            if not end.is_loose or not is_there:
                spaces.give(namespace)
            if not is_there:
                return False
            end.namespace, end.place, end.is_loose = namespace, place, False
            namespace.number, namespace.handle = end.number, end.handle
        ends = [replace(each, place=end.place) for each, end in zip(live.wire.ends, live.ends, strict=True)]
        live.wire = replace(live.wire, ends=tuple(ends))
        return True

    def forget(self, spaces: Namespaces, live: LiveWire) -> None:
        """Let go of all that a wire which was removed had beside its links."""
        self._aliases.discard(live.alias)
        live.device.give(spaces.own)
        for end, _, settings in live.sides():
            has_rules = bool(settings.defaults)
            namespace = end.namespace if not end.is_loose else spaces.again(end.handle) if has_rules else None
            if namespace is None:
                continue
            with contextlib.suppress(NetlinkError):  # rules without their link change nothing
                default_routes.remove(namespace.socket, end.index, settings.defaults)
            spaces.give(namespace)

    def _make(
        self, own: Namespace, wire: Wire, namespaces: Sequence[Namespace], alias: str, device: Device
    ) -> LiveWire:
        for _ in range(_INDEX_TRIES):
            ends = [_new_end(*at, has_mac=device.has_mac) for at in zip(namespaces, wire.places, strict=True)]
            if device.index is not None:
                ends[0].index = device.index
            live = LiveWire(wire, tuple(ends), alias, device)
            try:
                device.make(own, namespaces[0], wire, [end.link for end in ends])
            except NetlinkError as error:
                if (there := self._adopt(live)) is not None:
                    return there
                if not self._remove_leftovers(ends):
                    _explain(error, device, ends)
                continue
            _finish(live)
            return live
        raise Conflict(f"found no free interface index for {wire.places[0].name}")

    def _adopt(self, live: LiveWire) -> LiveWire | None:
        """The wire that is there already for this very connection, set to what is wanted."""
        found = [end.namespace.socket.link(name=end.place.name) for end in live.ends]
        there = [link for link in found if link is not None and link.alias == live.alias]
        if len(there) < len(found) or not live.device.is_as_wanted(there):
            return None
        live.ends = tuple(
            LiveEnd(end.namespace, end.place, link.index, link.mac) for end, link in zip(live.ends, there, strict=True)
        )
        _refuse_advertisements(live)
        for end, _, settings in live.sides():
            messages, defaults = end_changes.obsolete(end.namespace.socket, end.index, live.wire, settings)
            _apply(live, end, messages)
            default_routes.remove(end.namespace.socket, end.index, defaults)
        _configure(live)
        return live

    def _remove_leftovers(self, ends: Sequence[LiveEnd]) -> bool:
        """Remove what stands in the way and is an earlier process's; says whether there was anything."""
        found = False
        for end in ends:
            taken = end.namespace.socket.link(name=end.place.name)
            if taken is not None and self._is_leftover(taken.alias):
                end.namespace.socket.apply([delete_link(taken.index)], ignore=GONE)
                found = True
        return found

    def _is_leftover(self, alias: str) -> bool:
        return alias.startswith(f"nsm {self._owner} ") and alias not in self._aliases


def settle(live: LiveWire, timeout: float) -> None:
    """See whether the first packet would arrive: the kernel finishes carrier and addresses when it finds the time.

    The carrier comes with the second end, so this is for both ends when both are set. What takes longer than
    `timeout` is looked at again later: whoever holds an end can keep it from coming up.
    """
    end_of_wait = time.monotonic() + timeout
    for end, _, settings in live.sides():
        socket, addresses = end.namespace.socket, [address.ip for address in settings.addresses]
        left = max(0.0, end_of_wait - time.monotonic())
        if not socket.settle(end.index, addresses, left, has_carrier=live.device.tells_carrier):
            live.is_settled = False
            return
    live.is_settled = True


def _finish(live: LiveWire) -> None:
    """Give new links what they have to have, or remove them."""
    first, last = live.ends[0], live.ends[-1]
    try:
        live.device.prepare(first.namespace, live.wire, first.index)
        _refuse_advertisements(live)
        _configure(live)
    except BaseException:
        last.namespace.socket.apply([delete_link(last.index)], ignore=GONE)
        raise


def _held(end: LiveEnd, namespace: Namespace) -> LiveEnd:
    return replace(end, namespace=namespace, is_loose=False)


def _configure(live: LiveWire) -> None:
    for end, mac, settings in live.sides():
        first = set_up(end.index, live.alias, proxy_arp=settings.proxy_arp or None)
        wanted = end_changes.everything(end.namespace.socket, end.index, live.wire, settings, mac)
        _apply(live, end, [first, *wanted])
    settle(live, _SETTLING_AT_ONCE)


def _apply(live: LiveWire, end: LiveEnd, messages: Sequence[Message]) -> None:
    try:
        end.namespace.socket.apply(messages)
    except NetlinkError as error:
        live.device.explain_down(error)
        if error.errno != errno.EACCES:
            raise
        end.namespace.enable_ipv6(end.name)
        end.namespace.socket.apply(messages)


def _protect_node(own: Namespace, wire: Wire, namespaces: Sequence[Namespace]) -> None:
    """An end in the node's own namespace must not take anything from the node. Raises `Refused`."""
    for end, namespace in zip(wire.ends, namespaces, strict=True):
        if os.path.sameopenfile(namespace.descriptor, own.descriptor):
            check_own_namespace(end.settings, Networks(read_underlay()))


def _explain(error: NetlinkError, device: Device, ends: Sequence[LiveEnd]) -> None:
    """Raise what a refused creation means; returns if another index may help."""
    for end in ends:
        taken = end.namespace.socket.link(name=end.place.name)
        if taken is not None:
            whose = f", by {taken.alias!r}" if taken.alias else ""
            raise Conflict(f"interface name {end.place.name!r} is taken in {end.namespace.where}{whose}") from error
    device.explain_refusal(error)
    if error.errno not in (errno.EEXIST, errno.EBUSY):
        raise error


def _passed(own: Namespace, end: LiveEnd) -> Traffic | None:
    if end.is_loose:
        return own.socket.traffic(end.index, end.number)
    return end.namespace.socket.traffic(end.index)


def _is_end(namespace: Namespace, end: LiveEnd, alias: str) -> bool:
    link = namespace.socket.link(index=end.index)
    return link is not None and link.alias == alias  # its name may be an administrator's


def _refuse_advertisements(live: LiveWire) -> None:
    """An end has the addresses and routes of its connection, and none that somebody on the wire advertises."""
    for number, end in enumerate(live.ends):
        if not (live.wire.accept_ra and number == 0):
            end.namespace.refuse_advertisements(end.name)


def _new_end(namespace: Namespace, place: Place, *, has_mac: bool) -> LiveEnd:
    """An index that nobody has: the kernel counts up from 1, so anything high and random is free."""
    return LiveEnd(namespace, place, _FIRST_INDEX + secrets.randbelow(_INDEXES), _new_mac() if has_mac else "")


def _new_mac() -> str:
    """A locally administered unicast address."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)
