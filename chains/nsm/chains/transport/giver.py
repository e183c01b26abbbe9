"""Whether the process at the other end of a unix socket may pass on a network namespace.

It may if the namespace is its own, or if it could do there what a forwarder does (CAP_NET_ADMIN in the user namespace
that owns it). The kernel shows that in several ways, none of which works everywhere:

| how | needs |
| --- | --- |
| the namespace that the peer's socket was made in has the id of this one | we accepted; Linux 6.18 |
| a descriptor of the peer's process leads to its namespace | Linux 6.11, and rights to look into it |
| ``/proc/PID`` of the peer shows its namespaces and capabilities | a PID namespace with it in sight, and rights |
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.core.descriptors import facts_of

from .disposal import peer_uid

T = TypeVar("T")

OPENING_VARIABLE = "NSM_UNCHECKED_NAMESPACES"
_SO_NETNS_COOKIE, _SO_PEERPIDFD = 71, 77
_NS_GET_USERNS, _NS_GET_PARENT, _NS_GET_NSTYPE, _NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB703, 0xB704
_NS_GET_ID = 0x8008B70D
_PIDFD_GET_NET_NAMESPACE, _PIDFD_GET_USER_NAMESPACE = 0xFF04, 0xFF09
_CLONE_NEWNET = 0x40000000
_CAP_NET_ADMIN = 12
_DEEPEST = 32
"""User namespaces nest no deeper."""

FileKey = tuple[int, int]


class Giver:
    """The peer of the connected unix socket `sock`; `accepted`: the peer connected, and this process accepted."""

    def __init__(self, sock: socket.socket, *, accepted: bool) -> None:
        self._sock, self._accepted = sock, accepted
        self.uid = peer_uid(sock)

    def check(self, file: int, name: str, *, unchecked: bool) -> None:
        """See `Received.check_namespace`; `file` is the descriptor (O_PATH is enough), `name` its name in errors."""
        with network_namespace(file, name) as namespace:
            try:
                with _Evidence(self._sock, self._accepted) as evidence:
                    entitled = evidence.entitles_to(namespace)
            except OSError as error:
                raise Refused(f"the owner of the namespace {name} is no longer known: {error.strerror}") from None
        if entitled is None and not unchecked:
            raise Refused(
                f"nothing here shows whether the namespace {name} is that of the process that passed it "
                f"({evidence}); {OPENING_VARIABLE}=true accepts such namespaces"
            )
        if entitled is False:
            raise Refused(
                f"the namespace {name} is neither that of the process that passed it ({evidence}) nor has that "
                "process CAP_NET_ADMIN over it"
            )


@contextmanager
def network_namespace(file: int, name: str) -> Iterator[int]:
    """`file` opened again, for as long as the body runs. Raises `InvalidRequest` if it is not a network namespace.

    Nothing is opened before it is known to be a namespace, since that may block: opening a FIFO waits for its writer.
    """
    wrong = InvalidRequest(f"{name} is not a network namespace")
    try:
        if not facts_of(file).is_namespace:
            raise wrong
        opened = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"{name} is not a network namespace: {error.strerror}") from None
    try:
        if _tried(lambda: fcntl.ioctl(opened, _NS_GET_NSTYPE)) != _CLONE_NEWNET:
            raise wrong
        yield opened
    finally:
        os.close(opened)


class _Evidence:
    """The kernel's facts about a peer, as long as they are read."""

    def __init__(self, sock: socket.socket, accepted: bool) -> None:
        self._sock, self._accepted = sock, accepted
        self._pid, self._uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self._process: int | None = None

    def __enter__(self) -> _Evidence:
        self._process = _tried(lambda: self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        if self._process is None and self._pid:
            self._process = _tried(lambda: os.pidfd_open(self._pid))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            os.close(self._process)

    def __str__(self) -> str:
        where = f"pid {self._pid}" if self._pid else "in another PID namespace"
        return f"{where}, uid {self._uid}"

    def entitles_to(self, namespace: int) -> bool | None:
        """Whether the peer may pass on `namespace`; None if nothing shows it."""
        if by_socket := self._made_its_socket_in(namespace):
            return True
        if (its := self._key_of("net", _PIDFD_GET_NET_NAMESPACE)) == _key(namespace):
            return True
        capable = self._is_capable(namespace)
        if capable or (by_socket is None and its is None):
            return capable or None
        return None if capable is None and self._pid else False

    def _made_its_socket_in(self, namespace: int) -> bool | None:
        """An accepted socket is in the network namespace of the process that connected."""
        if not self._accepted:
            return None
        cookie, identifier = _tried(lambda: _cookie(self._sock)), _tried(lambda: _id_of(namespace))
        if cookie is None or identifier is None:
            return None
        return cookie == identifier

    def _key_of(self, kind: str, request: int) -> FileKey | None:
        """Device and inode of a namespace of the peer's process."""
        process = self._process
        opened = None if process is None else _tried(lambda: fcntl.ioctl(process, request, 0))
        if opened is None:
            return self._of_process(lambda: facts_of(f"/proc/{self._pid}/ns/{kind}").key)
        try:
            return _key(opened)
        finally:
            os.close(opened)

    def _of_process(self, look: Callable[[], T]) -> T | None:
        """The result of `look` in the peer's folder in /proc, whose number was not reused meanwhile."""
        if not self._pid or self._process is None:
            return None
        seen = _tried(look)
        return seen if self._is_alive() else None

    def _is_alive(self) -> bool:
        poll = select.poll()
        assert self._process is not None
        poll.register(self._process, select.POLLIN)
        return not poll.poll(0)

    def _is_capable(self, namespace: int) -> bool | None:
        """Whether the peer has CAP_NET_ADMIN in the user namespace that owns `namespace` (user_namespaces(7))."""
        status = self._of_process(lambda: _status(self._pid))
        if status is None:
            return None
        user, (uid, capabilities) = self._key_of("user", _PIDFD_GET_USER_NAMESPACE), status
        has, owners = bool(capabilities >> _CAP_NET_ADMIN & 1), _owners(namespace)
        if user is None:  # then we may not look into it: it has more rights than we have, or is another user's
            return None if has or any(owner == uid for _, owner in owners) else False
        for level, (owner_namespace, _) in enumerate(owners):
            if owner_namespace == user:
                return has or any(owner == uid for _, owner in owners[level - 1 : level])
        return False


def _owners(namespace: int) -> list[tuple[FileKey, int]]:
    """The user namespace that owns `namespace` and its visible ancestors: key, and the uid of its owner."""
    found: list[tuple[FileKey, int]] = []
    current = _tried(lambda: fcntl.ioctl(namespace, _NS_GET_USERNS))
    while current is not None and len(found) < _DEEPEST:
        owner = struct.unpack("I", fcntl.ioctl(current, _NS_GET_OWNER_UID, bytes(4)))[0]
        found.append((_key(current), owner))
        inner, current = current, _tried(lambda at=current: fcntl.ioctl(at, _NS_GET_PARENT))  # type: ignore[misc]
        os.close(inner)
    return found


def _status(pid: int) -> tuple[int, int]:
    """Effective uid and effective capabilities of a process."""
    with open(f"/proc/{pid}/status", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file if line.startswith((b"Uid:", b"CapEff:")))
    return int(fields[b"Uid"].split()[1]), int(fields[b"CapEff"], 16)


def _cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def _id_of(namespace: int) -> int:
    return int.from_bytes(fcntl.ioctl(namespace, _NS_GET_ID, bytes(8)), "little")


def _key(descriptor: int) -> FileKey:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _tried(look: Callable[[], T]) -> T | None:
    """The result of `look`, or None if this kernel or our rights do not allow it."""
    with suppress(OSError):
        return look()
    return None
