"""Closes what peers sent, away from the event loop: how long a `close` takes is up to who made the file.

A TCP socket waits in it for its data to be acknowledged (SO_LINGER), a file of a file system that does not answer waits
for that, and the last process that has a file open does the waiting.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

MOST_AT_ONCE = 253
"""Descriptors that one message can bring (SCM_MAX_FD). With less room the kernel itself closes what is left over."""
ANCILLARY = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
_MOST_THREADS = 32
_STUCK = 0.05
"""Seconds after which a `close` counts as stuck."""
_AT_REST = struct.pack("ii", 0, 0)
_CHUNK = 256 * 1024


def dispose(descriptors: Iterable[int]) -> None:
    """Close `descriptors`, and come back at once."""
    for descriptor in descriptors:
        _threads.run(partial(_close, descriptor))


def hang_up(sock: socket.socket) -> None:
    """Close a non-blocking unix socket, and what its peer has sent there that was not read."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    try:
        data, descriptors = _read(sock)
    except OSError:
        data, descriptors = b"", []
    dispose(descriptors)
    if data:
        _threads.run(partial(_drain, sock))
    else:
        sock.close()


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
            for descriptor in descriptors:
                _close(descriptor)
            if not data:
                break
    sock.close()


def _close(descriptor: int) -> None:
    """Without lingering, if it is a socket."""
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_REST)
        finally:
            sock.detach()
    with contextlib.suppress(OSError):
        os.close(descriptor)


class _Threads:
    """Threads that come with the work and end with it: another one only while those that run are stuck."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._began: dict[object, float] = {}
        """When each thread began with what it does now."""

    def run(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(work)
            stuck_since = time.monotonic() - _STUCK
            if len(self._began) >= _MOST_THREADS or any(began > stuck_since for began in self._began.values()):
                return
            me = object()
            self._began[me] = time.monotonic()
        threading.Thread(target=self._work, args=(me,), name="closes what peers sent", daemon=True).start()

    def _work(self, me: object) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    del self._began[me]
                    return
                work = self._waiting.popleft()
                self._began[me] = time.monotonic()
            work()


_threads = _Threads()
