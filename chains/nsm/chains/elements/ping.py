"""Echoes (ICMP and ICMPv6) by sockets that need no privileges: the kernel keeps their numbers apart."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct

from nsm.chains.model.addresses import Address

ECHOES = 4
"""The most echoes that are sent, one each quarter of the time."""
_HEADER = struct.Struct("!BBHHH")
_KINDS = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129)}
_PASSING = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""The machine is busy: the wire may still work."""
_LONGEST = 1500


async def answers(source: Address, target: Address, interface: str, timeout: float) -> bool:
    """Whether `target` answers an echo from `source` within `timeout` seconds; link-local ones are on `interface`.

    Routes choose the way: both may be in this namespace. Raises OSError if this process cannot send any: EACCES or
    EPERM if it may not.
    """
    family, protocol, request, reply = _KINDS[target.version]
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol) as sock:
        try:
            sock.bind(_place(source, interface))
            sock.connect(_place(target, interface))
            for number in range(ECHOES):
                _send(sock, _HEADER.pack(request, 0, 0, 0, number))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout / ECHOES):
                        await _reply(sock, reply)
                        return True
        except OSError as error:
            if error.errno == errno.EPERM:  # a packet filter of the workload's
                raise
            return False  # no address, no route, no neighbour
    return False


def _place(address: Address, interface: str) -> tuple[str, int] | tuple[str, int, int, int]:
    if address.version == 4:
        return str(address), 0
    scope = socket.if_nametoindex(interface) if address.is_link_local else 0
    return str(address), 0, 0, scope


def _send(sock: socket.socket, message: bytes) -> None:
    try:
        sock.send(message)
    except OSError as error:
        if error.errno not in _PASSING:
            raise


async def _reply(sock: socket.socket, kind: int) -> None:
    """Wait for an answer: only those to this socket's own echoes arrive here."""
    loop = asyncio.get_running_loop()
    while not (message := await loop.sock_recv(sock, _LONGEST)) or message[0] != kind:
        pass
