"""Closes what peers sent, away from the event loop: how long a `close` takes is up to who made the file.

A TCP socket waits in it for its data to be acknowledged (SO_LINGER), a file of a file system that does not answer waits
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
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from nsm.chains.core.descriptors import FileFacts, facts_of

MOST_AT_ONCE = 253
"""Descriptors that one message can bring (SCM_MAX_FD). With less room the kernel itself closes what is left over."""
ANCILLARY = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
_MOST_THREADS = 32
_STUCK = 0.05
"""Seconds after which a `close` counts as stuck."""
_MOST_WAITING = 512
_QUICK = (stat.S_IFSOCK, stat.S_IFIFO, 0)
_AT_REST = struct.pack("ii", 0, 0)
_CHUNK = 256 * 1024


def dispose(descriptors: Iterable[int]) -> None:
    """Close `descriptors`, and come back at once."""
    later = {}
    for descriptor in descriptors:
        facts = _facts(descriptor)
        if facts is not None and (facts.is_namespace or facts.is_socket):
            os.close(descriptor)  # takes no time
        else:
            later[descriptor] = stat.S_IFMT(facts.mode) if facts is not None else stat.S_IFREG
    if later:
        _threads.run(partial(_close_all, later), len(later))


def hang_up(sock: socket.socket) -> None:
    """Close a non-blocking unix socket, and what its peer has sent there that was not read."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    if is_behind():
        _threads.run(partial(_drain, sock), 1)
        return
    try:
        data, descriptors = _read(sock)
    except OSError:
        data, descriptors = b"", []
    dispose(descriptors)
    if data:
        _threads.run(partial(_drain, sock), 1)
    else:
        sock.close()


def is_behind() -> bool:
    """Whether so many descriptors wait to be closed that none should be taken from strangers."""
    return _threads.waiting > _MOST_WAITING


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


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, descriptors = _read(sock)
            dispose(descriptors)
            if not data:
                break
    sock.close()


def _close_all(kinds: Mapping[int, int]) -> None:
    """Close descriptors, given with the kinds of their files: those together that are done at once.

    Each call lets the event loop run first, so few calls are made of them.
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
        _threads.run(partial(_close, descriptor), 1)
    if slow:
        _close(slow[0])


def _let_go(descriptor: int) -> None:
    """Have a socket linger no longer."""
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
    """Threads that come with the work and end with it: another one only while those that run are stuck."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self.waiting = 0
        """How many descriptors are not closed yet."""
        self._began: dict[object, float] = {}
        """When each thread began with what it does now."""

    def run(self, work: Callable[[], None], size: int) -> None:
        with self._lock:
            self._waiting.append((work, size))
            self.waiting += size
            stuck_since = time.monotonic() - _STUCK
            if len(self._began) >= _MOST_THREADS or any(began > stuck_since for began in self._began.values()):
                return
            me = object()
            self._began[me] = time.monotonic()
        threading.Thread(target=self._work, args=(me,), name="closes what peers sent", daemon=True).start()

    def _work(self, me: object) -> None:
        size = 0
        while True:
            with self._lock:
                self.waiting -= size
                if not self._waiting:
                    del self._began[me]
                    return
                work, size = self._waiting.popleft()
                self._began[me] = time.monotonic()
            work()


_threads = _Threads()
