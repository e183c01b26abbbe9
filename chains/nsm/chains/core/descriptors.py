"""File descriptors that travel beside the messages of one connection (unix sockets only)."""

from __future__ import annotations

from typing import Protocol


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
