"""File descriptors that travel beside the messages of one connection (unix sockets only)."""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
from functools import cache
from typing import NamedTuple, Protocol

from nsm.chains import libc
from nsm.chains.errors import InvalidRequest

FileKey = tuple[int, int]
"""Device and inode, as `stat` gives them."""

_SHOWN = 100
_STATX_TYPE, _STATX_MODE, _STATX_INO = 0x1, 0x2, 0x100
_STATX_WANTED, _STATX_FIELDS = _STATX_TYPE | _STATX_MODE | _STATX_INO, struct.Struct("=28xH2xQ96xII")
"""The mask for `statx`, and the offsets of mode, inode, and the two device numbers in its answer."""
HELD: dict[str, FileKey] = {}
"""The files that peers sent and that are open here, by `Received.path`: their identity is looked up once."""


class Received(Protocol):
    """One use of a descriptor that a peer sent. It stays open until its last use is released."""

    @property
    def path(self) -> str:
        """``/proc/<pid>/fd/<n>``: where this process can open the file again."""
        ...

    @property
    def key(self) -> FileKey:
        """Its device and inode."""
        ...

    @property
    def is_socket(self) -> bool:
        """Whether it is a unix socket; else it is a namespace."""
        ...

    def another(self) -> Received:
        """One more use of it."""
        ...

    def check_namespace(self, *, unchecked: bool) -> None:
        """Raise `InvalidRequest` unless it is a network namespace, `Refused` unless its sender is entitled to it.

        A process is entitled to its own namespace, and to those that it has CAP_NET_ADMIN over. `unchecked` accepts it
        even if the kernel shows neither.
        """
        ...

    def release(self) -> None:
        """End this use; a second call does nothing."""
        ...


class Inbox(Protocol):
    """Where the descriptors from the other side of a transport arrive."""

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """The file `(device, inode)` that the peer sends beside its message.

        Waits up to `timeout` seconds for its arrival; raises `InvalidRequest` if it does not arrive, or is of a kind
        that is not accepted.
        """
        ...

    def settle(self, device: int, inode: int) -> None:
        """The message that named the file has been handled; no other message may take it."""
        ...


class FileFacts(NamedTuple):
    """The kernel's facts about a file, without asking its file system."""

    device: int
    inode: int
    mode: int

    @property
    def key(self) -> FileKey:
        """Device and inode."""
        return self.device, self.inode

    @property
    def is_namespace(self) -> bool:
        """Whether it is a namespace, of any kind."""
        return self.device == _namespaces_device()

    @property
    def is_socket(self) -> bool:
        """Whether it is a unix socket in a file system, which can be connected to by its file."""
        return stat.S_ISSOCK(self.mode) and self.device != _open_sockets_device()


def facts_of(file: int | str) -> FileFacts:
    """The facts of an open descriptor, or of a path with links followed. Raises OSError.

    `stat` would ask the file system, and a peer's may be one that never answers (FUSE, NFS).
    """
    mode, inode, major, minor = _STATX_FIELDS.unpack_from(libc.statx(file, _STATX_WANTED))
    return FileFacts(os.makedev(major, minor), inode, mode)


def file_key(url: str) -> FileKey | None:
    """Device and inode of a URL ``inode://device/inode``; None for any other. Raises `InvalidRequest` if malformed."""
    if not url.startswith("inode://"):
        return None
    found = _INODE.fullmatch(url)
    if found is None:
        raise InvalidRequest(f"{shown_url(url)} is malformed; expected inode://device/inode in decimal")
    return int(found[1]), int(found[2])


_INODE = re.compile(r"inode://([0-9]{1,20})/([0-9]{1,20})")


def inode_url(path: str) -> str:
    """The name of the file at `path` while it travels. Raises `InvalidRequest` if it does not exist."""
    try:
        device, inode = HELD.get(path) or facts_of(path).key
    except OSError as error:
        raise InvalidRequest(f"cannot pass {shown_url(path)}: {error.strerror}") from None
    return f"inode://{device}/{inode}"


def shown_url(url: str) -> str:
    """Another component's URL as an error may show it: of bounded length, and only visible ASCII."""
    return ascii(url[:_SHOWN])[1:-1] + ("…" if len(url) > _SHOWN else "")


@cache
def _namespaces_device() -> int:
    return os.stat("/proc/self/ns/net").st_dev


@cache
def _open_sockets_device() -> int:
    with socket.socket(socket.AF_UNIX) as one:
        return os.fstat(one.fileno()).st_dev
