"""The sockets that a component listens on, and who may connect to them."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import Conflict, InvalidRequest

from .urls import Address


@dataclass(frozen=True, kw_only=True)
class SocketAccess:
    """The permissions of a unix socket: its mode, and its group if that is not the process's own."""

    mode: int = 0o660
    group: str = ""


async def tcp_socket(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    """A socket bound to `address`, not listening yet. Raises `Conflict`."""
    wanted = await loop.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = sorted(wanted, key=lambda info: info[0] != socket.AF_INET6)[0]
    if not address.host:
        family, place = socket.AF_INET6, ("::", address.port)
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise Conflict(f"cannot listen on {address}: {error.strerror}") from None
    return sock


def unix_socket(path: str, access: SocketAccess) -> socket.socket:
    """A socket bound to `path`, not listening yet. Raises `Conflict`, or `InvalidRequest` for an unknown group."""
    try:
        _remove_stale(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Conflict(f"cannot listen on unix://{path}: {error.strerror or error}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o777 & ~access.mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        if access.group:
            os.chown(path, -1, grp.getgrnam(access.group).gr_gid)
    except KeyError:
        sock.close()
        os.unlink(path)
        raise InvalidRequest(f"there is no group {access.group!r} to give {path} to") from None
    except OSError as error:
        sock.close()
        raise Conflict(f"cannot listen on unix://{path}: {error.strerror or error}") from None
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket without a listener; anything else in the way is a conflict."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise Conflict(f"cannot listen on unix://{path}: a file is there that is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise Conflict(f"cannot listen on unix://{path}: another process listens there already") from None
        else:
            raise Conflict(f"cannot listen on unix://{path}: another process listens there already")
