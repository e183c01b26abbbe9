"""Changes of the interfaces of this network namespace, as the kernel reports them (rtnetlink)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from .rtnetlink import (
    ADDRESS,
    ADDRESSES,
    BUFFER,
    DELLINK,
    ERROR,
    LINK,
    LINK_GROUP,
    LINKS,
    NEWLINK,
    Message,
    dump,
    local_address,
    messages_of,
    netlink_socket,
    request,
)

_UP, _CARRIER = 0x1, 0x10000
_MOST, _MOST_ADDRESSES = 64, 10_000

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
            self._socket = netlink_socket(LINK_GROUP)
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._watched.setdefault(index, []).append(on_down)
        self.look_at(index)  # it may be down already
        return lambda: self._forget(index, on_down)

    def look_at(self, index: int) -> None:
        """Ask the kernel for the state of a watched link: it reports a lost carrier up to a second late."""
        if self._socket is None or index not in self._watched:
            return
        self._socket.send(request(LINKS, LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0), sequence=index))

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
                data = self._socket.recv(BUFFER)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                for index in list(self._watched):  # there were more events than the kernel keeps
                    self.look_at(index)
                continue
            for message in messages_of(data):
                self._judge(message)

    def _judge(self, message: Message) -> None:
        if message.kind == ERROR:  # the link does not exist; only failures are answered so
            self._tell(message.sequence, "it no longer exists")
        elif message.kind in (NEWLINK, DELLINK):
            _, _, index, flags, _ = LINK.unpack_from(message.body)
            if message.kind == DELLINK:
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
    with netlink_socket() as sock:
        for answer in dump(sock, ADDRESSES, _MOST_ADDRESSES):
            if local_address(answer) == address:
                return int(ADDRESS.unpack_from(answer)[4])
    return None
