"""A forwarder's links in the kernel: those whose alias names it, in the namespaces that can be reached.

Those are the node's own, those with a number there, since each namespace of a wire's end is given one, and those of the
other ends of what was found so far. So two nodes on one machine never confuse their wires, whatever
their forwarders are called, and no search keeps a namespace from ending.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nsm.chains.core import FileKey
from nsm.chains.core.descriptors import facts_of
from nsm.chains.netlink import Link, Namespace, Namespaces, NetlinkError, Socket

OWN = -1
"""Stands for the number of the node's own namespace."""


@dataclass(frozen=True, slots=True)
class OwnedLink:
    """One end of a wire, in the namespace of a number."""

    alias: str
    number: int
    index: int
    name: str
    kind: str
    vni: int = 0
    """That of a VXLAN device."""

    @property
    def namespace(self) -> int | None:
        """The number for a query in the node's namespace; None: that one itself."""
        return None if self.number == OWN else self.number


@dataclass(frozen=True, slots=True)
class Owned:
    """A wire, or what is left of one. `connection_id` is its digest if it was too long for an alias."""

    connection_id: str
    links: tuple[OwnedLink, ...]
    is_live: bool
    """Whether a connection of this process has it."""
    is_used: bool = True
    """Whether none of its namespaces is known to be without processes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one search."""

    links: list[OwnedLink]
    keys: Mapping[int, FileKey]
    """Device and inode of the namespaces whose process was seen, by their numbers."""


def find(spaces: Namespaces, pids: Mapping[FileKey, Iterable[int]], mark: str) -> Found:
    """The links whose alias begins with `mark`. `pids` are the processes in each namespace."""
    own = spaces.own.socket
    there = [each for each in own.links(mark) if not _is_shared(each)]
    links = [_owned(each, OWN) for each in there]
    keys: dict[int, FileKey] = {}
    with contextlib.suppress(NetlinkError):  # a kernel without numbers: wires are found when connections request them
        waiting = {each.lower_in for each in there} | set(own.numbers())
        done = {None, own.known_number(spaces.own.descriptor)}
        while waiting - done:
            number = next(iter(waiting - done))
            done.add(number)
            there = _links_there(own, mark, number)
            waiting |= {each.lower_in for each in there}  # numbers that the kernel gave just now, if they are new
            links += [_owned(each, number) for each in there]
        keys = dict(_keys(spaces, pids)) if links else {}
    return Found(links, keys)


def find_in(spaces: Namespaces, namespace: Namespace, mark: str) -> list[OwnedLink]:
    """The same, in one namespace that is open, and which has a number from now on."""
    spaces.identify(namespace)
    number = OWN if namespace.key == spaces.own.key else namespace.number
    if number is None:
        return []
    return [_owned(each, number) for each in namespace.socket.links(mark) if not _is_shared(each)]


def _keys(spaces: Namespaces, pids: Mapping[FileKey, Iterable[int]]) -> Iterator[tuple[int, FileKey]]:
    """Device and inode of the namespaces that have a number and a process."""
    for key, processes in pids.items():
        descriptor = _opened(key, processes) if key != spaces.own.key else None
        if descriptor is not None:
            try:
                number = spaces.own.socket.known_number(descriptor)
            finally:
                os.close(descriptor)
            if number is not None:
                yield number, key


def _opened(key: FileKey, processes: Iterable[int]) -> int | None:
    for process in processes:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            if facts_of(descriptor).key == key:
                return descriptor
            os.close(descriptor)
    return None


def _links_there(own: Socket, mark: str, number: int | None) -> list[Link]:
    try:
        return own.links(mark, number)
    except NetlinkError:
        return []  # it has ended meanwhile


def _owned(link: Link, number: int | None) -> OwnedLink:
    vni = link.details.get("IFLA_VXLAN_ID", 0)
    return OwnedLink(link.alias, OWN if number is None else number, link.index, link.name, link.kind, vni)


def _is_shared(link: Link) -> bool:
    """Whether several wires are on it: see `tagged_links`."""
    return link.kind == "vlan"
