"""Descriptors that arrive on one connection, counted so that none is lost and none stays.

A peer sends a descriptor ahead of a message that names it by device and inode, once for each time that it is named.
So each message that has been dealt with settles as many arrivals as it names. Between arrival and settlement, and
for as long as somebody uses it, the file stays open; then it is closed. A connection may live for ever, so nothing
waits for its end.
"""

from __future__ import annotations

import asyncio
import os
import stat

from nsm.chains.core import InvalidRequest, Received

MOST_FILES = 256
"""Files of one connection that may wait for a message that names them; the one that came first goes when more come."""

FileKey = tuple[int, int]
"""Device and inode, as `stat` gives them."""


class FileInbox:
    """The files that the peer of one connection has sent: the `Inbox` of the calls on it."""

    def __init__(self) -> None:
        self._files: dict[FileKey, _File] = {}
        self._waiting: dict[FileKey, list[asyncio.Future[None]]] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many files are open."""
        return len(self._files)

    def arrived(self, descriptor: int) -> None:
        """Take over `descriptor`, which just came; a second one of the same file is closed, but counted."""
        status = os.fstat(descriptor)
        key = status.st_dev, status.st_ino
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = _File(descriptor)
            self._make_room()
        else:
            os.close(descriptor)
        file.arrivals += 1
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """See `Inbox.take`."""
        key = device, inode
        if key not in self._files:
            await self._arrival(key, timeout)
        file = self._files[key]
        file.uses += 1
        return _Use(self, key, file)

    def settle(self, device: int, inode: int) -> None:
        """A message that named the file has been dealt with: its arrival is not waited for any more."""
        file = self._files.get((device, inode))
        if file is not None:
            file.arrivals = max(0, file.arrivals - 1)
            self._close_if_unused((device, inode), file)

    def close(self) -> None:
        """The connection ended: close what nobody uses, and let nobody wait."""
        self._closed = True
        for key, file in list(self._files.items()):
            file.arrivals = 0
            self._close_if_unused(key, file)
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.cancel()
        self._waiting.clear()

    def release(self, key: FileKey, file: _File) -> None:
        """End one use."""
        file.uses -= 1
        self._close_if_unused(key, file)

    async def _arrival(self, key: FileKey, timeout: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(0 if self._closed else timeout):
                await waiter
        except TimeoutError:
            name = f"inode://{key[0]}/{key[1]}"
            raise InvalidRequest(f"the descriptor of {name} did not arrive within {timeout:g} s") from None
        finally:
            waiters = self._waiting.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(key, None)

    def _make_room(self) -> None:
        """Close what came first and nobody uses."""
        if len(self._files) <= MOST_FILES:
            return
        waiting = [(key, file) for key, file in self._files.items() if not file.uses]
        for key, file in waiting[: max(0, len(waiting) - MOST_FILES)]:
            file.arrivals = 0
            self._close_if_unused(key, file)

    def _close_if_unused(self, key: FileKey, file: _File) -> None:
        if not file.uses and not file.arrivals and self._files.get(key) is file:
            del self._files[key]
            os.close(file.descriptor)


class _File:
    __slots__ = ("arrivals", "descriptor", "uses")

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.arrivals, self.uses = descriptor, 0, 0


class _Use:
    """One use of a file: a `Received`."""

    __slots__ = ("_file", "_inbox", "_key", "_open")

    def __init__(self, inbox: FileInbox, key: FileKey, file: _File) -> None:
        self._inbox, self._key, self._file, self._open = inbox, key, file, True

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._file.descriptor}"

    def release(self) -> None:
        if self._open:
            self._open = False
            self._inbox.release(self._key, self._file)


def key_of(path: str) -> FileKey:
    """Device and inode of the file at `path`, links followed. Raises `InvalidRequest` if it is not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidRequest(f"cannot pass {path}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def open_to_send(path: str) -> int:
    """A descriptor of the file at `path` that grants nothing but its identity (O_PATH). Raises `InvalidRequest`."""
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"cannot pass {path}: {error.strerror}") from None


def is_socket(path: str) -> bool:
    """Whether there is a unix socket at `path`."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
