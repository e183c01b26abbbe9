"""Changes of the interfaces of this network namespace, as the kernel reports them (rtnetlink)."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator

_GETLINK, _GETADDR, _NEWLINK, _DELLINK, _NEWADDR = 18, 22, 16, 17, 20
_REQUEST, _DUMP, _ERROR, _DONE = 0x1, 0x300, 2, 3
_LINK_GROUP = 1
_HEADER, _LINK, _ADDRESS = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP, _CARRIER = 0x1, 0x10000
_BUFFER, _MOST = 1 << 16, 64

Down = Callable[[str], None]
"""Receives why a link passes no packets."""


class LinkEvents:
    """Reports links that go down, lose their carrier or are deleted. It has a socket while any link is watched."""

    def __init__(self) -> None:
        self._watched: dict[int, list[Down]] = {}
        self._socket: socket.socket | None = None

    def watch(self, index: int, on_down: Down) -> Callable[[], None]:
        """Call `on_down` once when the link `index` is down, soon if it is now; not after the returned call.

        Raises OSError.
        """
        if self._socket is None:
            self._socket = _open(_LINK_GROUP)
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._watched.setdefault(index, []).append(on_down)
        self.look_at(index)  # it may be down already
        return lambda: self._forget(index, on_down)

    def look_at(self, index: int) -> None:
        """Ask the kernel for the state of a watched link: it reports a lost carrier up to a second late."""
        if self._socket is None or index not in self._watched:
            return
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _GETLINK, _REQUEST, index, 0) + body)

    def _forget(self, index: int, on_down: Down) -> None:
        calls = self._watched.get(index, [])
        if on_down in calls:
            calls.remove(on_down)
        if not calls:
            self._watched.pop(index, None)
        self._settle()

    def _settle(self) -> None:
        if not self._watched and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        for _ in range(_MOST):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                for index in list(self._watched):  # there were more events than the kernel keeps
                    self.look_at(index)
                continue
            for kind, sequence, body in messages(data):
                self._judge(kind, sequence, body)

    def _judge(self, kind: int, sequence: int, body: bytes) -> None:
        if kind == _ERROR:  # the link does not exist; only failures are answered so
            self._tell(sequence, "it no longer exists")
        elif kind in (_NEWLINK, _DELLINK):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            if kind == _DELLINK:
                self._tell(index, "it was deleted")
            elif not flags & _UP:
                self._tell(index, "it was set down")
            elif not flags & _CARRIER:
                self._tell(index, "its other end is down or gone")

    def _tell(self, index: int, why: str) -> None:
        for on_down in self._watched.pop(index, []):
            on_down(why)
        self._settle()


def index_with(address: bytes) -> int | None:
    """The index of the interface that has `address`, packed; None if none has. Raises OSError."""
    with _open(0) as sock:
        sock.setblocking(True)
        sock.settimeout(1.0)
        body = _ADDRESS.pack(socket.AF_INET if len(address) == 4 else socket.AF_INET6, 0, 0, 0, 0)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GETADDR, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            for kind, _, answer in messages(sock.recv(_BUFFER)):
                if kind in (_DONE, _ERROR):
                    return None
                if kind == _NEWADDR and address in _attributes(answer):
                    return int(_ADDRESS.unpack_from(answer)[4])


def _attributes(answer: bytes) -> Iterator[bytes]:
    """The addresses of an answer."""
    position = _ADDRESS.size
    while position + _ATTRIBUTE.size <= len(answer):
        size, kind = _ATTRIBUTE.unpack_from(answer, position)
        if kind in (_IFA_ADDRESS, _IFA_LOCAL):
            yield answer[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The kind, the sequence number and the body of each message."""
    position = 0
    while position + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
        yield kind, sequence, data[position + _HEADER.size : position + size]
        position += max(_HEADER.size, (size + 3) & ~3)


def _open(groups: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock
