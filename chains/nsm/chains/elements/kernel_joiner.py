"""Joins interfaces of this process's network namespace in the kernel: by a bridge, or by forwarding between them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from nsm.apis.payloads import ETHERNET
from nsm.chains.core import Refused, Unavailable
from nsm.chains.logs import log

from . import rtnetlink_changes as changes
from .join_sides import OnJoined, Pair
from .rtnetlink import (
    BUFFER,
    DELLINK,
    IFNAME,
    LINK,
    LINK_GROUP,
    NEWLINK,
    Message,
    attribute_of,
    messages_of,
    netlink_socket,
)
from .rtnetlink_changes import Address, Change

_UP, _MOST = 0x1, 64
_TO_TABLE, _OTHERWISE, _LOCAL = 10, 11, 50
"""Priorities of rules: what arrives at a joined interface goes by its own table, and nowhere else; the rule for this
namespace's own addresses, which comes first elsewhere, follows."""
_LOWEST_TABLE = 1 << 30
_NO_INDEX = (1 << 31) - 1
_IPV6_FORWARDING = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_IPV4_FORWARDING = Path("/proc/sys/net/ipv4/conf/default/forwarding")
_PERMISSION = "joining interfaces needs CAP_NET_ADMIN in this process's network namespace"


@dataclass(slots=True)
class _Joint:
    """A pair, its callback, and the interfaces that are joined: their indexes."""

    pair: Pair
    on_joined: OnJoined
    joined: tuple[int, int] | None = None

    @property
    def bridge(self) -> str:
        return f"br-{self.pair.mark}"

    @property
    def part(self) -> str:
        """What the interface towards the client becomes a part of: see `JOINT`."""
        return self.bridge if self.pair.payload == ETHERNET else str(_tables(self)[1])

    @property
    def names(self) -> tuple[str, str]:
        return self.pair.client_side, self.pair.server_side


class KernelJoiner:
    """Joins pairs of interfaces, whenever both are there.

    Ethernet is bridged. IP is forwarded: what arrives at one interface leaves by the other, whatever its addresses,
    and is dropped as long as the other is not there. So clients with the same addresses do not disturb each other, and
    this namespace's own addresses cannot be reached by a wire, even if a forwarder gives one to a bare interface.

    What is joined stays joined when the process ends. Raises `Refused` without the right to change interfaces.
    """

    def __init__(self) -> None:
        self._joints: dict[str, _Joint] = {}
        self._events: socket.socket | None = None
        self._is_ipv6_forwarded = False
        try:
            self._apply([changes.delete_link(_NO_INDEX, "no interface")])
        except PermissionError as error:
            raise Refused(_PERMISSION) from error

    def join(self, pair: Pair, on_joined: OnJoined) -> str:
        """Keep a pair joined; see `Joiner`. Raises `Unavailable` if the kernel refuses, or cannot forward IPv6."""
        joint = self._joints.get(pair.client_side)
        if joint is not None and joint.pair == pair:
            return joint.part
        self._listen()
        if pair.payload != ETHERNET:
            self._forward(pair)
        if joint is None:
            joint = self._joints[pair.client_side] = _Joint(pair, on_joined)
        joint.pair, joint.on_joined, joint.joined = pair, on_joined, None
        try:
            self._apply(_rules(joint))
            if pair.payload == ETHERNET:
                self._make_bridge(joint)
        except OSError as error:
            raise Unavailable(f"cannot join {pair.client_side} and {pair.server_side}: {error}") from error
        self._try(joint)
        return joint.part

    async def leave(self, client_side: str) -> None:
        """Remove what joins a pair, if it is known."""
        if (joint := self._joints.pop(client_side, None)) is None:
            return
        if not self._joints:
            self._stop_listening()
        try:
            await asyncio.to_thread(self._apply, list(_removal(joint)))  # the kernel waits when it removes a bridge
        except OSError as error:
            log.warning("what joined two interfaces is left behind", interfaces=joint.names, error=str(error))

    async def aclose(self) -> None:
        """Stop listening; what is joined stays."""
        self._stop_listening()
        self._joints.clear()

    def _bring(self, joint: _Joint) -> None:
        """Make those interfaces that are there parts of the joint; it is complete with both. Raises OSError."""
        ends = _index(joint.pair.client_side), _index(joint.pair.server_side)
        if joint.joined == ends or not any(ends):
            return
        if joint.pair.payload == ETHERNET:
            bridge = socket.if_nametoindex(joint.bridge)
            there = [(index, name) for index, name in zip(ends, joint.names, strict=True) if index]
            self._apply(changes.enslave(index, bridge, name) for index, name in there)
        else:
            self._route(joint, ends)
        if all(ends):
            joint.joined = ends
            log.info("joined", client_side=joint.pair.client_side, server_side=joint.pair.server_side)
            joint.on_joined(*joint.names)

    def _make_bridge(self, joint: _Joint) -> None:
        self._apply([changes.create_bridge(joint.bridge)])
        bridge = socket.if_nametoindex(joint.bridge)
        self._apply([changes.silence(bridge, joint.bridge), changes.set_up(bridge, joint.bridge)])

    def _route(self, joint: _Joint, ends: tuple[int, int]) -> None:
        try:
            self._apply(_routes(joint, ends))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._apply(_routes(joint, ends, by_gateway=False))  # a forwarder has given us that address

    def _forward(self, pair: Pair) -> None:
        """Have interfaces that are not there yet forward IPv4, where /proc/sys is writable; IPv6 needs that."""
        with suppress(OSError):
            _IPV4_FORWARDING.write_text("1")
        if 6 in _versions(pair):
            self._forward_ipv6()

    def _forward_ipv6(self) -> None:
        if self._is_ipv6_forwarded:
            return
        try:
            if _IPV6_FORWARDING.read_text().strip() == "0":
                _IPV6_FORWARDING.write_text("1")
        except OSError as error:
            raise Unavailable(
                f"cannot forward IPv6: {_IPV6_FORWARDING} cannot be set ({error.strerror}); set the sysctl"
                " net.ipv6.conf.all.forwarding=1 for this network namespace, or use the payload ETHERNET"
            ) from error
        self._is_ipv6_forwarded = True

    def _apply(self, changed: Iterable[Change]) -> None:
        with closing(netlink_socket()) as sock:
            changes.apply(sock, changed)

    def _listen(self) -> None:
        if self._events is None:
            self._events = netlink_socket(LINK_GROUP)
            self._events.setblocking(False)
            asyncio.get_running_loop().add_reader(self._events, self._read)

    def _stop_listening(self) -> None:
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
            self._events = None

    def _read(self) -> None:
        for _ in range(_MOST):
            if self._events is None:
                return
            try:
                data = self._events.recv(BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                for joint in list(self._joints.values()):  # there were more events than the kernel keeps
                    self._try(joint)
                continue
            for message in messages_of(data):
                self._judge(message)

    def _judge(self, message: Message) -> None:
        if message.kind in (NEWLINK, DELLINK):
            name = attribute_of(message.body, LINK.size, IFNAME).rstrip(b"\0").decode(errors="replace")
            if (joint := self._joint_of(name)) is None:
                return
            if message.kind == DELLINK:
                joint.joined = None  # it may come back with the same index
            elif LINK.unpack_from(message.body)[3] & _UP:
                self._try(joint)

    def _joint_of(self, name: str) -> _Joint | None:
        return next((joint for joint in self._joints.values() if name in joint.names), None)

    def _try(self, joint: _Joint) -> None:
        try:
            self._bring(joint)
        except OSError as error:  # it may have vanished again; the next event of it tries again
            log.info("two interfaces are not joined yet", interfaces=joint.names, error=str(error))


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _tables(joint: _Joint) -> tuple[int, int]:
    """The tables for what arrives at either interface: the same ones in every process."""
    table = _LOWEST_TABLE | (int(joint.pair.mark, 16) << 1 & (_LOWEST_TABLE - 1))
    return table, table + 1


def _rules(joint: _Joint) -> Iterator[Change]:
    """From each interface to its own table only, or from the bridge to nowhere; interfaces may appear later."""
    for version in (4, 6):
        for name, table in _ways(joint):
            yield changes.rule_from(name, version, _OTHERWISE, None)
            if table is not None:
                yield changes.rule_from(name, version, _TO_TABLE, table)
        yield changes.rule_for_own_addresses(version, _LOCAL)
        yield changes.no_rule_for_own_addresses(version, 0)


def _ways(joint: _Joint) -> Iterator[tuple[str, int | None]]:
    """Where packets arrive that this namespace routes, and the tables by which it does."""
    if joint.pair.payload == ETHERNET:
        yield joint.bridge, None
    else:
        yield from zip(joint.names, _tables(joint), strict=True)


def _routes(joint: _Joint, ends: tuple[int, int], *, by_gateway: bool = True) -> Iterator[Change]:
    """What arrives at one interface leaves by the other, to the address at its far end."""
    out = tuple(zip(ends, joint.names, (joint.pair.client_addresses, joint.pair.server_addresses), strict=True))
    for table, (index, name, addresses) in zip(_tables(joint), reversed(out), strict=True):
        if not index:
            continue
        yield changes.forward_ipv4(index, name)
        for version in _versions(joint.pair):
            far = next((each for each in _parsed(addresses) if each.version == version), None)
            yield changes.default_route(table, index, far if by_gateway else None, version, name)


def _removal(joint: _Joint) -> Iterator[Change]:
    if joint.pair.payload == ETHERNET and (index := _index(joint.bridge)):
        yield changes.delete_link(index, joint.bridge)
    for name, _ in _ways(joint):
        for version in (4, 6):
            for priority in (_TO_TABLE, _OTHERWISE):
                yield changes.no_rule_from(name, version, priority)


def _versions(pair: Pair) -> list[int]:
    return sorted({each.version for each in _parsed((*pair.client_addresses, *pair.server_addresses))})


def _parsed(addresses: Iterable[str]) -> Iterator[Address]:
    for text in addresses:
        with suppress(ValueError):
            yield ipaddress.ip_interface(text).ip
