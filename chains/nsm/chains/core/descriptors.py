"""File descriptors that travel beside the messages of one connection (unix sockets only)."""

from __future__ import annotations

import os
import re
from typing import Protocol

from .errors import InvalidRequest


class Received(Protocol):
    """One use of a descriptor that a peer sent. It stays open until its last use is released."""

    @property
    def path(self) -> str:
        """``/proc/<pid>/fd/<n>``: where this process can open the file anew."""
        ...

    def release(self) -> None:
        """End this use; a second call does nothing."""
        ...


class Inbox(Protocol):
    """Where the descriptors arrive that the other side of a transport sends."""

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """The file `(device, inode)` that the peer sends beside its message.

        Waits up to `timeout` seconds for its arrival; raises `InvalidRequest` if it does not come.
        """
        ...

    def settle(self, device: int, inode: int) -> None:
        """A message that named the file has been dealt with; nobody else will take what came with it."""
        ...


def file_key(url: str) -> tuple[int, int] | None:
    """Device and inode of a URL ``inode://device/inode``; None for any other. Raises `InvalidRequest` if malformed."""
    if not url.startswith("inode://"):
        return None
    found = _INODE.fullmatch(url)
    if found is None:
        raise InvalidRequest(f"{url[:_SHOWN]!r} is malformed; expected inode://device/inode in decimal")
    return int(found[1]), int(found[2])


_INODE = re.compile(r"inode://([0-9]{1,20})/([0-9]{1,20})")
_SHOWN = 64
"""Characters of a URL that an error shows."""


def inode_url(path: str) -> str:
    """How the file at `path` is named while it travels. Raises `InvalidRequest` if it is not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidRequest(f"cannot pass {path}: {error.strerror}") from None
    return f"inode://{status.st_dev}/{status.st_ino}"
