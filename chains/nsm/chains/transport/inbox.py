"""Descriptors that arrive on one connection, counted so that none is lost and none stays.

A peer sends a descriptor before a message that names it by device and inode, once for each time that it is named.
So each message that was handled, or will not be, settles as many arrivals as it names, and the first user of a file
gets one that arrived with a message. Between arrival and settlement, and for as long as it is in use, the file stays
open; then it is closed. A connection may live forever, so nothing waits for its end: a file whose message never came,
because its sender was stopped in the middle, is closed after a while.

Only namespaces and unix sockets in a file system are useful, and closing those takes no time. Any other file is
closed at once, and so is everything beyond the number that a connection may have waiting: a few before its peer was
verified, which may have sent the first request by then (TLS 1.3), more afterwards.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import ClassVar

from nsm.chains.core import InvalidRequest, Limits, Received
from nsm.chains.core.descriptors import HELD, FileFacts, FileKey, facts_of

from .disposal import NOBODY, dispose
from .giver import Giver, network_namespace

_MANY, _SHARES = 4, 16
"""If all connections have more idle files than this, each is limited to that part of its usual number."""
_REMEMBERED = 16
"""Files that were refused, whose reason is reported when a message names them."""


UNCLAIMED = 60.0
"""Seconds after which an unused file is closed. A message that names it comes at once, but may wait for its turn."""


class TooManyFiles(ConnectionAbortedError):
    """The peer sent more descriptors than it may: the connection ends."""


class FileInbox:
    """The files that the peer of one connection has sent: the `Inbox` of the calls on it.

    `giver` is that peer; None: the owners of namespaces are not checked.
    """

    idle: ClassVar[int] = 0
    """Unused files in all inboxes."""

    def __init__(self, giver: Giver | None = None, limits: Limits | None = None, *, is_verified: bool = True) -> None:
        self._giver, self._limits, self.is_verified = giver, limits or Limits(), is_verified
        self._sender = giver.uid if giver is not None else NOBODY
        self._before = self._useless = 0
        """The number of files before the peer was verified, and of refused files."""
        self._files: dict[FileKey, _File] = {}
        self._idle: dict[FileKey, float] = {}
        """The unused ones, oldest first: until when they are kept."""
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[FileKey, list[asyncio.Future[None]]] = {}
        self._refused: list[tuple[FileKey, str]] = []
        self._closed = False

    def __len__(self) -> int:
        """The number of open files."""
        return len(self._files)

    def verified(self) -> None:
        """The peer is verified."""
        self.is_verified, self._before = True, 0

    def arrived(self, descriptor: int) -> None:
        """Take over `descriptor`, which just arrived; a second one of the same file is closed, but counted.

        Raises `TooManyFiles` for more than an unverified peer may send.
        """
        self._before += not self.is_verified
        if self._before > (most := self._limits.unverified_descriptors):
            dispose([descriptor], self._sender)
            raise TooManyFiles(f"it sent more than {most} descriptors before its identity was known")
        try:
            facts = facts_of(descriptor)
        except OSError:
            self._drop(descriptor)
            return
        if self._closed or not (facts.is_namespace or facts.is_socket):
            self._refuse(facts)
            self._drop(descriptor)
            return
        file = self._files.get(facts.key)
        if file is not None:
            os.close(descriptor)
        else:
            file = self._files[facts.key] = _File(descriptor, facts.is_socket)
            HELD[file.path] = facts.key
            self._set_idle(facts.key)
            self._make_room()
        file.arrivals += 1
        self._wake(facts.key)

    async def take(self, device: int, inode: int, *, timeout: float) -> Received:
        """See `Inbox.take`."""
        key = device, inode
        try:
            async with asyncio.timeout(None) as limit:
                while (file := self._files.get(key)) is None or file.arrivals <= file.claims:
                    self._tell_if_refused(key)
                    if limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + (0 if self._closed else timeout))
                    await self._next_arrival(key)
        except TimeoutError:
            raise InvalidRequest(f"the descriptor of {_name(key)} did not arrive within {timeout:g} s") from None
        file.claims += 1
        return self.use(key, file)

    def settle(self, device: int, inode: int) -> None:
        """A message that named the file was handled: its arrival is no longer waited for."""
        file = self._files.get((device, inode))
        if file is not None:
            file.arrivals, file.claims = max(0, file.arrivals - 1), max(0, file.claims - 1)
            self._close_if_unused((device, inode), file)

    def close(self) -> None:
        """The connection ended: close unused files, and let no call wait."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key, file in list(self._files.items()):
            file.arrivals = 0
            self._close_if_unused(key, file)
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.cancel()
        self._waiting.clear()

    def use(self, key: FileKey, file: _File) -> Received:
        """Begin one use of a file that is here."""
        file.uses += 1
        self._set_used(key)
        return _Use(self, key, file)

    def release(self, key: FileKey, file: _File) -> None:
        """End one use."""
        file.uses -= 1
        if not file.uses and file.arrivals and self._files.get(key) is file:
            self._set_idle(key)
        self._close_if_unused(key, file)

    def check_namespace(self, key: FileKey, file: _File, *, unchecked: bool) -> None:
        """See `Received.check_namespace`; the result is kept."""
        if file.is_checked:
            return
        if self._giver is None:
            with network_namespace(file.descriptor, _name(key)):
                pass
        else:
            self._giver.check(file.descriptor, _name(key), unchecked=unchecked)
        file.is_checked = True

    async def _next_arrival(self, key: FileKey) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiting.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(key, None)

    def _wake(self, key: FileKey) -> None:
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _drop(self, descriptor: int) -> None:
        dispose([descriptor], self._sender)
        self._useless += 1
        if self._useless > self._limits.descriptors:
            raise TooManyFiles("it goes on sending descriptors that are neither namespaces nor sockets")

    def _refuse(self, facts: FileFacts) -> None:
        self._refused = [*self._refused[1 - _REMEMBERED :], (facts.key, _kind(facts))]
        self._wake(facts.key)

    def _tell_if_refused(self, key: FileKey) -> None:
        for refused in self._refused:
            if refused[0] == key:
                self._refused.remove(refused)
                raise InvalidRequest(
                    f"the descriptor {_name(key)} is {refused[1]}; only network namespaces and unix sockets are passed"
                )

    def _set_idle(self, key: FileKey) -> None:
        FileInbox.idle += key not in self._idle
        loop = asyncio.get_running_loop()
        self._idle[key] = until = loop.time() + UNCLAIMED
        if self._timer is None and not self._closed:
            self._timer = loop.call_at(until, self._close_unclaimed)

    def _set_used(self, key: FileKey) -> None:
        FileInbox.idle -= key in self._idle
        self._idle.pop(key, None)

    def _close_unclaimed(self) -> None:
        self._timer, loop = None, asyncio.get_running_loop()
        for key, until in [*self._idle.items()]:
            if until > loop.time():
                self._timer = loop.call_at(until, self._close_unclaimed)
                return
            self._files[key].arrivals = 0
            self._close_if_unused(key, self._files[key])

    def _make_room(self) -> None:
        """Close the oldest unused files: sooner if all connections together have many of these."""
        most = self._limits.descriptors
        while len(self._idle) > (most if FileInbox.idle <= _MANY * most else max(1, most // _SHARES)):
            key = next(iter(self._idle))
            self._files[key].arrivals = 0
            self._close_if_unused(key, self._files[key])

    def _close_if_unused(self, key: FileKey, file: _File) -> None:
        if not file.uses and not file.arrivals and self._files.get(key) is file:
            del self._files[key], HELD[file.path]
            self._set_used(key)
            os.close(file.descriptor)


class _File:
    __slots__ = ("arrivals", "claims", "descriptor", "is_checked", "is_socket", "path", "uses")

    def __init__(self, descriptor: int, is_socket: bool) -> None:
        self.descriptor, self.is_socket = descriptor, is_socket
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self.arrivals = self.claims = self.uses = 0
        self.is_checked = False


class _Use:
    """One use of a file: a `Received`."""

    __slots__ = ("_file", "_inbox", "_key", "_open")

    def __init__(self, inbox: FileInbox, key: FileKey, file: _File) -> None:
        self._inbox, self._key, self._file, self._open = inbox, key, file, True

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def key(self) -> FileKey:
        return self._key

    @property
    def is_socket(self) -> bool:
        return self._file.is_socket

    def another(self) -> Received:
        return self._inbox.use(self._key, self._file)

    def check_namespace(self, *, unchecked: bool) -> None:
        self._inbox.check_namespace(self._key, self._file, unchecked=unchecked)

    def release(self) -> None:
        if self._open:
            self._open = False
            self._inbox.release(self._key, self._file)


def open_to_send(path: str) -> int:
    """A descriptor of the file at `path` that grants nothing but its identity (O_PATH).

    Raises `InvalidRequest` if it does not exist, or is neither a namespace nor a socket.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"cannot pass {path}: {error.strerror}") from None
    if path in HELD:
        return descriptor
    facts = facts_of(descriptor)
    if facts.is_namespace or facts.is_socket:
        return descriptor
    os.close(descriptor)
    raise InvalidRequest(f"cannot pass {path}: it is {_kind(facts)}, neither a namespace nor a unix socket")


def is_socket(path: str) -> bool:
    """Whether there is a unix socket at `path`."""
    try:
        return facts_of(path).is_socket
    except OSError:
        return False


def _name(key: FileKey) -> str:
    return f"inode://{key[0]}/{key[1]}"


def _kind(facts: FileFacts) -> str:
    kind = stat.S_IFMT(facts.mode)
    return _KINDS.get(kind, "no file of a file system")


_KINDS = {
    stat.S_IFSOCK: "an open socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}
