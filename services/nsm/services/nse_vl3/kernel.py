"""What an endpoint of a vL3 sets in its own network namespace: its addresses, forwarding, and the end of its prefixes.

The endpoint's addresses are on the loopback interface: they exist without any wire. Addresses of its prefixes that no
client has, and of the network that no endpoint has, are unreachable instead of being sent along the default route.
The routes stay when the process ends, as its wires do, and show the next process which prefixes it had.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence

from nsm.chains.core import MeshError
from nsm.chains.elements.rtnetlink import (
    ADDRESS,
    ADDRESSES,
    BUFFER,
    ERROR,
    MAIN,
    ROUTE,
    ROUTES,
    RTA_DST,
    attributes_of,
    dump,
    local_address,
    messages_of,
    netlink_socket,
    request,
)
from nsm.chains.elements.underlay import Underlay
from nsm.chains.model.addresses import Address, Network
from nsm.chains.model.networks import Networks
from nsm.chains.model.vl3 import Share
from nsm.services.forwarding import forward

_NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 20, 21, 24, 25
_ACK, _CREATE, _EXCL = 0x4, 0x400, 0x200
_IFA_ADDRESS, _IFA_LOCAL, _NODAD = 1, 2, 0x02
_UNREACHABLE, _PROTOCOL, _RTA_PRIORITY = 7, 110, 6
_LAST = 4_000_000_000
"""The metric of unreachable prefixes: any other route goes first."""
_MOST = 500_000
_ATTRIBUTE = struct.Struct("=HH")
_FINE = {errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}


class Vl3Kernel:
    """The addresses and the unreachable prefixes of this endpoint."""

    def __init__(self) -> None:
        self._forwards: set[int] = set()
        self._own: set[Address] = set()
        self._underlay = Underlay()

    def outside(self) -> Networks:
        """The networks of this namespace outside of the mesh: all but wires, and the addresses that are set here."""
        return Networks(
            each for each in self._underlay().listed if each.num_addresses > 1 or each.network_address not in self._own
        )

    def former(self) -> list[Network]:
        """The prefixes of an earlier process in this namespace. Raises OSError."""
        with netlink_socket() as sock:
            own = set(_loopback_addresses(dump(sock, ADDRESSES, _MOST)))
            unreachable = list(_unreachable(dump(sock, ROUTES, _MOST)))
        found = [each for each in unreachable if each.network_address in own and not _is_wider(each, unreachable)]
        self._own.update(each.network_address for each in found)
        return found

    def set(self, shares: Sequence[Share]) -> None:
        """Have exactly the addresses and prefixes of `shares`, and forward packets of their families.

        Raises `MeshError` that says what is missing.
        """
        try:
            self._set(shares)
        except OSError as error:
            raise MeshError(
                f"cannot set the addresses of this endpoint: {error.strerror or error}; it needs CAP_NET_ADMIN"
            ) from error
        for version in {share.version for share in shares} - self._forwards:
            forward(version)
            self._forwards.add(version)

    def _set(self, shares: Sequence[Share]) -> None:
        addresses = {share.own for share in shares}
        self._own |= addresses
        prefixes = {each for share in shares for each in (share.prefix, share.whole)}
        with netlink_socket() as sock:
            former = set(_unreachable(dump(sock, ROUTES, _MOST)))
            had = {each for each in _loopback_addresses(dump(sock, ADDRESSES, _MOST)) if _is_own(each, former)}
            loopback = socket.if_nametoindex("lo")
            for address in addresses:
                _ask(sock, _NEWADDR, _address(address, loopback), _CREATE | _EXCL)
            for prefix in prefixes:
                _ask(sock, _NEWROUTE, _route(prefix), _CREATE | _EXCL)
            for address in had - addresses:
                _ask(sock, _DELADDR, _address(address, loopback))
            for prefix in former - prefixes:
                _ask(sock, _DELROUTE, _route(prefix))


def _loopback_addresses(answers: Iterable[bytes]) -> Iterator[Address]:
    """Single addresses on the loopback interface that are not its own."""
    loopback = socket.if_nametoindex("lo")
    for answer in answers:
        _, length, _, _, index = ADDRESS.unpack_from(answer)
        packed = local_address(answer)
        if packed and index == loopback and length == 8 * len(packed):
            address = ipaddress.ip_address(packed)
            if not address.is_loopback:
                yield address


def _unreachable(answers: Iterable[bytes]) -> Iterator[Network]:
    """The prefixes that this mesh made unreachable."""
    for answer in answers:
        _, length, _, _, table, protocol, _, kind, _ = ROUTE.unpack_from(answer)
        packed = attributes_of(answer, ROUTE.size).get(RTA_DST, b"")
        if packed and table == MAIN and protocol == _PROTOCOL and kind == _UNREACHABLE:
            yield ipaddress.ip_network((ipaddress.ip_address(packed), length))


def _is_wider(network: Network, others: Sequence[Network]) -> bool:
    """Whether another one of `others` begins at the same address, and is narrower: `network` is the whole vL3 then."""
    return any(
        each.network_address == network.network_address and each.prefixlen > network.prefixlen for each in others
    )


def _is_own(address: Address, prefixes: Iterable[Network]) -> bool:
    return any(each.network_address == address for each in prefixes)


def _address(address: Address, link: int) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = ADDRESS.pack(family, address.max_prefixlen, _NODAD if address.version == 6 else 0, 0, link)
    return head + _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)


def _route(prefix: Network) -> bytes:
    family = socket.AF_INET if prefix.version == 4 else socket.AF_INET6
    head = ROUTE.pack(family, prefix.prefixlen, 0, 0, MAIN, _PROTOCOL, 0, _UNREACHABLE, 0)
    return (
        head
        + _attribute(RTA_DST, prefix.network_address.packed)
        + _attribute(_RTA_PRIORITY, _LAST.to_bytes(4, sys.byteorder))
    )


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _ask(sock: socket.socket, kind: int, body: bytes, flags: int = 0) -> None:
    """Make one change. Raises OSError, unless it is made already."""
    sock.send(request(kind, body, sequence=kind, flags=flags | _ACK))
    for message in messages_of(sock.recv(BUFFER)):
        if message.kind == ERROR:
            code = -int(struct.unpack_from("=i", message.body)[0])
            if code and code not in _FINE:
                raise OSError(code, os.strerror(code))
