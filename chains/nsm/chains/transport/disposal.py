"""Closes descriptors from peers outside of the event loop: the time that a `close` takes is up to the file's maker.

A TCP socket waits in `close` for its data to be acknowledged (SO_LINGER), a file of an unresponsive file system waits
for that, and the last process that has a file open does the waiting.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import stat
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from nsm.chains.core.descriptors import FileFacts, facts_of

MOST_AT_ONCE = 253
"""The most descriptors of one message (SCM_MAX_FD). With less room the kernel itself closes the others."""
ANCILLARY = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
NOBODY = -1
_MOST_THREADS = 32
_STUCK = 0.05
"""Seconds after which a `close` counts as stuck."""
_MOST_WAITING = 512
_QUICK = (stat.S_IFSOCK, stat.S_IFIFO, 0)
_AT_REST = struct.pack("ii", 0, 0)
_CHUNK = 256 * 1024


def dispose(descriptors: Iterable[int], sender: int = NOBODY) -> None:
    """Close `descriptors`, and return at once. `sender` is the uid of their sender."""
    later = {}
    for descriptor in descriptors:
        facts = _facts(descriptor)
        if facts is not None and (facts.is_namespace or facts.is_socket):
            os.close(descriptor)  # takes no time
        else:
            later[descriptor] = stat.S_IFMT(facts.mode) if facts is not None else stat.S_IFREG
    if later:
        _threads.run(partial(_close_all, later, sender), sender, len(later))


def hang_up(sock: socket.socket) -> None:
    """Close a non-blocking unix socket, and the unread descriptors in it."""
    sender = peer_uid(sock)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    if is_behind(sender):
        _threads.run(partial(_drain, sock, sender), sender, 1)
        return
    try:
        data, descriptors = _read(sock)
    except OSError:
        data, descriptors = b"", []
    dispose(descriptors, sender)
    if data:
        _threads.run(partial(_drain, sock, sender), sender, 1)
    else:
        sock.close()


def is_behind(sender: int) -> bool:
    """Whether so many descriptors of a user wait to be closed that further ones should not be accepted."""
    return _threads.waiting[sender] > _MOST_WAITING


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a unix socket; -1 if that is no longer known."""
    try:
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    except OSError:
        return NOBODY


def descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that a `recvmsg` brought."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _read(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _flags, _address = sock.recvmsg(_CHUNK, ANCILLARY, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
    return data, descriptors_in(ancillary)


def _drain(sock: socket.socket, sender: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, descriptors = _read(sock)
            dispose(descriptors, sender)
            if not data:
                break
    sock.close()


def _close_all(kinds: Mapping[int, int], sender: int) -> None:
    """Close descriptors, given with the kinds of their files: together those that close without waiting.

    Each call lets the event loop run first, so few calls are made.
    """
    quick = sorted(each for each, kind in kinds.items() if kind in _QUICK)
    for descriptor in quick:
        if kinds[descriptor] == stat.S_IFSOCK:
            _let_go(descriptor)
    first = 0
    for last in range(1, len(quick) + 1):
        if last == len(quick) or quick[last] != quick[last - 1] + 1:
            os.closerange(quick[first], quick[last - 1] + 1)
            first = last
    slow = [each for each, kind in kinds.items() if kind not in _QUICK]
    for descriptor in slow[1:]:
        _threads.run(partial(_close, descriptor), sender, 1)
    if slow:
        _close(slow[0])


def _let_go(descriptor: int) -> None:
    """Stop a socket from lingering."""
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_REST)
        finally:
            sock.detach()


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _facts(descriptor: int) -> FileFacts | None:
    try:
        return facts_of(descriptor)
    except OSError:
        return None


class _Threads:
    """Threads that start with the work and end with it: another one is started only while those that run are stuck."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], None], int, int]] = deque()
        self.waiting: Counter[int] = Counter()
        """The number of descriptors not closed yet, by the user that sent them."""
        self._began: dict[object, float] = {}
        """When each thread started its current work."""

    def run(self, work: Callable[[], None], sender: int, size: int) -> None:
        with self._lock:
            self._waiting.append((work, sender, size))
            self.waiting[sender] += size
            stuck_since = time.monotonic() - _STUCK
            if len(self._began) >= _MOST_THREADS or any(began > stuck_since for began in self._began.values()):
                return
            me = object()
            self._began[me] = time.monotonic()
        threading.Thread(target=self._work, args=(me,), name="closes what peers sent", daemon=True).start()

    def _work(self, me: object) -> None:
        sender = size = 0
        while True:
            with self._lock:
                self.waiting -= Counter({sender: size})  # zeros are dropped
                if not self._waiting:
                    del self._began[me]
                    return
                work, sender, size = self._waiting.popleft()
                self._began[me] = time.monotonic()
            work()


_threads = _Threads()
