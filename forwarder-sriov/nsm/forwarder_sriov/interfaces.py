"""Moves the interfaces of virtual functions into namespaces of workloads, and back. Used in the kernel's thread only.

An interface's alias says whose it is and what it was called, so it is known after a restart, and after a namespace that
ended with it: the kernel moves it to the node's then.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nsm.chains.core import Conflict, FileKey, InvalidRequest
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import Settings, Wire
from nsm.chains.logs import log
from nsm.chains.netlink import (
    Link,
    Message,
    Namespace,
    Namespaces,
    NetlinkError,
    functions,
    rename,
    set_mtu,
    set_up,
)
from nsm.chains.netlink.processes import Processes
from nsm.forwarder_kernel import default_routes, end_changes
from nsm.forwarder_kernel.owned import OWN, find

from .pool import Holding

_LONGEST_ALIAS = 255
_GONE = frozenset({errno.ENODEV})
_KIND = ""
"""What the kernel says of the kind of a card's interfaces: workloads can create others only, with any alias."""
_RESET = 5.0
"""Seconds in which a driver has to take over a MAC."""


@dataclass(slots=True)
class Moved:
    """An interface in a workload's namespace."""

    alias: str
    card: str
    """The interface of its physical function; empty: it has none here."""
    number: int
    """The function's, at that."""
    namespace: Namespace
    index: int
    mtu: int = 0
    """Its former MTU."""
    mac: str = ""
    """Its former MAC, if it was changed."""
    is_loose: bool = False
    """Whether the namespace is released, and `namespace` must not be used."""
    key: FileKey = (0, 0)
    space: int | None = None
    handle: bytes = b""


@dataclass(frozen=True, slots=True)
class Former:
    """An interface of an earlier process, or of a namespace that has ended."""

    connection_id: str
    token: str
    address: str
    """That of its function."""
    name: str
    """Its name on the node."""
    key: FileKey | None
    """The namespace, if a process of it is seen."""
    is_back: bool
    """Whether it is on the node."""


class Interfaces:
    """The interfaces of the functions that `owner` gave away."""

    def __init__(self, owner: str) -> None:
        self._mark = f"nsm-sriov {owner} "
        self._processes = Processes()

    def alias(self, holding: Holding, name: str) -> str:
        """What an interface called `name` on the node bears while a connection has it."""
        alias = f"{self._mark}{holding.connection_id} {holding.token} {holding.function.address} {name}"
        if len(alias.encode()) > _LONGEST_ALIAS:
            raise InvalidRequest(f"the connection's id is too long: {len(holding.connection_id)} characters")
        return alias

    def put(self, spaces: Namespaces, holding: Holding, wire: Wire, card: str, name: str) -> Moved:
        """Give a function's interface, `name` on the node, its place and settings; `card` is that of its card.

        One that is there already, by an earlier process, is adopted. Raises `Conflict` for a name that is taken, and
        what taking a namespace raises; the interface is back on the node then.
        """
        side, settings = _end(wire)
        namespace = spaces.take(side.path)
        with contextlib.ExitStack() as undo:
            undo.callback(spaces.give, namespace)
            spaces.identify(namespace)
            there = self._adopt(spaces, namespace, holding, wire, card)
            if there is None:
                there = self._move(spaces, namespace, holding, wire, card, name)
            moved = Moved(there.alias, card, holding.function.number, namespace, there.index, there.mtu)
            moved.key, moved.space, moved.handle = namespace.key, namespace.number, namespace.handle
            moved.mac = there.mac if settings.mac else ""
            try:
                self._configure(moved, wire)
            except BaseException:
                self.take_back(spaces, moved)
                raise
            undo.pop_all()
        return moved

    def change(self, moved: Moved, before: Wire, after: Wire, spaces: Namespaces) -> None:
        """Change its settings; what stays is not touched."""
        _, was = _end(before)
        side, wanted = _end(after)
        index = moved.index
        if (before.vlan, was.mac) != (after.vlan, wanted.mac):
            self.set_function(spaces, moved.card, moved.number, after)
            if wanted.mac and wanted.mac != was.mac:
                moved.namespace.socket.apply([functions.set_down(index)])
                _change_mac(moved.namespace, index, wanted.mac)
                moved.namespace.socket.apply([set_up(index, moved.alias)])
                was = replace(was, routes=(), neighbors=())  # those ended while it was down
        messages = end_changes.differences(moved.namespace.socket, index, after, was, wanted, "")
        if after.mtu and after.mtu != before.mtu:
            messages.insert(0, set_mtu(index, after.mtu))
        _apply(moved, side.name, messages)

    def restart(self, moved: Moved, wire: Wire) -> None:
        """Have its driver begin anew: some do not notice otherwise that their card has been reset meanwhile."""
        moved.namespace.socket.apply([functions.set_down(moved.index)])
        self._configure(moved, wire)

    def is_settled(self, moved: Moved, wire: Wire) -> bool:
        """Whether packets pass: a card takes its time to report its carrier."""
        return moved.namespace.socket.settle(moved.index, [each.ip for each in wire.client.settings.addresses], 0)

    def resume(self, spaces: Namespaces, moved: Moved, before: KernelInterface, side: KernelInterface) -> bool:
        """Whether it is where `side` says, renamed if that is another name than `before`.

        Takes up the namespace again that `let_go` released.
        """
        namespace = spaces.take(side.path)
        link = namespace.socket.link(index=moved.index)
        is_there = link is not None and link.alias == moved.alias and namespace.key == moved.key
        if is_there and link is not None and side.name not in (before.name, link.name):
            try:
                namespace.socket.apply([rename(link.index, side.name)])
            except NetlinkError:  # kernels before Linux 6.2 rename nothing that is up
                is_there = False
        if moved.is_loose and is_there:
            moved.namespace, moved.is_loose = namespace, False
        else:
            spaces.give(namespace)
        return is_there

    def let_go(self, spaces: Namespaces, moved: Moved) -> None:
        """Release the namespace."""
        if not moved.is_loose:
            moved.is_loose = True
            spaces.give(moved.namespace)

    def take_back(self, spaces: Namespaces, moved: Moved) -> bool:
        """Move it back to the node, under its former name; returns whether it is there.

        Then it loses MAC and VLAN of the connection. As long as a workload has it, it has to keep them.
        """
        held = None if moved.is_loose else moved.namespace
        with spaces.in_reach(held, moved.handle, moved.key, moved.space) as namespace:
            if namespace is not None:
                self._back(spaces, namespace, moved.alias, moved.index)
        clean = partial(self.clean, spaces, moved.card, moved.number)
        return self._restore(spaces, moved.alias, clean, mtu=moved.mtu, mac=moved.mac)

    def take_back_former(self, spaces: Namespaces, former: Former, clean: Callable[[], None], path: str = "") -> bool:
        """The same for one of an earlier process, whose MAC and VLAN are taken by `clean`.

        Its namespace is opened by `path` if it is there, or else by a process in it that is seen.
        """
        if not former.is_back:
            seen = self._processes.path(former.key) if former.key is not None else None
            if not (path := path or seen or ""):
                return False
            with contextlib.ExitStack() as stack:
                namespace = spaces.take(path)
                stack.callback(spaces.give, namespace)
                self._back(spaces, namespace, self._alias_of(former))
        return self._restore(spaces, self._alias_of(former), clean)

    def clean(self, spaces: Namespaces, card: str, number: int) -> None:
        """Take MAC and VLAN from a function."""
        if (link := spaces.own.socket.link(name=card) if card else None) is not None:
            spaces.own.socket.apply(
                [
                    functions.set_function_mac(link.index, number, functions.NO_MAC),
                    functions.set_function_vlan(link.index, number, 0),
                ],
                ignore=_GONE,
            )

    def set_function(self, spaces: Namespaces, card: str, number: int, wire: Wire) -> None:
        """Give a function the MAC and VLAN of a connection, or none. Raises `Conflict` if its card is out of reach."""
        settings = wire.client.settings
        if not (index := spaces.own.socket.index_named(card) if card else 0):
            if not settings.mac and not wire.vlan:
                return
            raise Conflict("the card's own interface is not on this node, so no MAC and no VLAN can be set")
        changes = [functions.set_function_mac(index, number, settings.mac)] if settings.mac else []
        spaces.own.socket.apply([*changes, functions.set_function_vlan(index, number, wire.vlan)])

    def former(self, spaces: Namespaces) -> list[Former]:
        """All interfaces that bear an alias of ours, wherever they are."""
        found = find(spaces, self._processes.look(), self._mark)
        formers = []
        for link in found.links:
            parts = link.alias.removeprefix(self._mark).rsplit(" ", 3)
            if len(parts) == 4 and link.kind == _KIND:
                connection_id, token, address, name = parts
                key = found.keys.get(link.number)
                formers.append(Former(connection_id, token, address, name, key, link.number == OWN))
        return formers

    # ---

    def _alias_of(self, former: Former) -> str:
        return f"{self._mark}{former.connection_id} {former.token} {former.address} {former.name}"

    def _adopt(self, spaces: Namespaces, namespace: Namespace, holding: Holding, wire: Wire, card: str) -> Link | None:
        """The interface of this very connection, if it is there, without the settings that are no longer wanted."""
        side, settings = _end(wire)
        there = namespace.socket.links(
            f"{self._mark}{holding.connection_id} {holding.token} {holding.function.address} "
        )
        for link in (each for each in there if each.kind == _KIND):
            if link.name != side.name:
                namespace.socket.apply([functions.set_down(link.index), rename(link.index, side.name)])
            self.set_function(spaces, card, holding.function.number, wire)
            messages, defaults = end_changes.obsolete(namespace.socket, link.index, wire, settings)
            namespace.socket.apply(messages)
            default_routes.remove(namespace.socket, link.index, defaults)
            return link
        return None

    def _move(
        self, spaces: Namespaces, namespace: Namespace, holding: Holding, wire: Wire, card: str, name: str
    ) -> Link:
        side, settings = _end(wire)
        own = spaces.own
        if not name or (link := own.socket.link(name=name)) is None:
            raise Conflict(f"the interface {name} of {holding.function.address} is no longer on the node")
        if (taken := namespace.socket.link(name=side.name)) is not None:
            whose = f", by {taken.alias!r}" if taken.alias else ""
            raise Conflict(f"interface name {side.name!r} is taken in {namespace.where}{whose}")
        alias = self.alias(holding, name)
        own.socket.apply([functions.set_down(link.index, alias)])  # first of all: from now on it is known whose it is
        try:
            self.set_function(spaces, card, holding.function.number, wire)
            if settings.mac:
                _change_mac(own, link.index, settings.mac)
            own.socket.apply([functions.move(link.index, namespace.descriptor, side.name)])
        except BaseException:
            self._back(spaces, namespace, alias)
            self._restore(spaces, alias, partial(self.clean, spaces, card, holding.function.number))
            raise
        return replace(link, index=namespace.socket.index_named(side.name), alias=alias)

    def _configure(self, moved: Moved, wire: Wire) -> None:
        side, settings = _end(wire)
        namespace, index = moved.namespace, moved.index
        if not wire.accept_ra:
            namespace.refuse_advertisements(side.name)
        first = [*([set_mtu(index, wire.mtu)] if wire.mtu else []), set_up(index, moved.alias)]
        _apply(moved, side.name, [*first, *end_changes.everything(namespace.socket, index, wire, settings, "")])

    def _back(self, spaces: Namespaces, namespace: Namespace, alias: str, index: int = 0) -> None:
        """Move what bears the alias to the node, or has the index; whatever is in the way of its name there stays."""
        known = namespace.socket.link(index=index) if index else None  # its workload may have changed the alias
        found = [known] if known is not None else namespace.socket.links(alias)
        for link in (each for each in found if each.kind == _KIND):
            namespace.socket.apply([functions.set_down(link.index, alias)], ignore=_GONE)
            for name in (alias.rpartition(" ")[2], f"dev{link.index}"):
                try:
                    namespace.socket.apply([functions.move(link.index, spaces.own.descriptor, name)])
                    break
                except NetlinkError as error:
                    if error.errno != errno.EEXIST:
                        raise

    def _restore(
        self, spaces: Namespaces, alias: str, clean: Callable[[], None], *, mtu: int = 0, mac: str = ""
    ) -> bool:
        """Give what bears the alias on the node its former name, and take the alias away; whether it is there.

        Its card, which has forgotten its MAC, gets the one that the interface has or had: else it receives nothing.
        """
        socket, name = spaces.own.socket, alias.rpartition(" ")[2]
        found = socket.links(alias)
        for link in found:
            messages: list[Message] = [functions.set_down(link.index, "")]
            messages += [set_mtu(link.index, mtu)] if mtu and mtu != link.mtu else []
            socket.apply(messages)
            clean()
            socket.apply([functions.set_mac(link.index, mac or link.mac)])
            if link.name != name:
                try:
                    socket.apply([rename(link.index, name)])
                except NetlinkError:
                    log.warning("an interface cannot have its former name", name=name, now=link.name)
        return bool(found)


def _end(wire: Wire) -> tuple[KernelInterface, Settings]:
    side = wire.client.side
    assert isinstance(side, KernelInterface)
    return side, wire.client.settings


def _apply(moved: Moved, name: str, messages: Sequence[Message]) -> None:
    try:
        moved.namespace.socket.apply(messages)
    except NetlinkError as error:
        if error.errno != errno.EACCES:
            raise
        moved.namespace.enable_ipv6(name)
        moved.namespace.socket.apply(messages)


def _change_mac(namespace: Namespace, index: int, mac: str) -> None:
    """Have a link that is down use a MAC that its card has been told: some drivers find out when they are reset.

    Raises `Conflict` if it does not.
    """
    socket = namespace.socket
    socket.apply([functions.set_mac(index, mac)])
    end = time.monotonic() + _RESET
    while (link := socket.link(index=index)) is not None and link.mac != mac:
        if time.monotonic() > end:
            raise Conflict(f"the driver of {link.name} keeps MAC {link.mac} and does not accept {mac}")
        socket.apply([functions.set_up_again(index), functions.set_down(index), functions.set_mac(index, mac)])
