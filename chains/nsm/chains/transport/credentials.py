"""Who is at the other end of a unix socket, as the kernel says it."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel says of the process at the other end of a unix socket."""

    pid: int
    """As this process sees it; 0 if it cannot see the other one."""
    uid: int
    gid: int
    process: int | None = None
    """A descriptor of that very process (pidfd), open as long as the connection; None if it had ended already."""

    def is_alive(self) -> bool:
        """Whether that process has not ended yet: as long as it has not, its `pid` is nobody else's."""
        if self.process is None:
            return False
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the descriptor."""
        if self.process is not None:
            os.close(self.process)


def credentials_of(sock: socket.socket) -> Credentials:
    """Those of the process that connected `sock`."""
    pid, uid, gid = _ids(sock)
    return Credentials(pid, uid, gid, _process(sock, pid))


def caller_of(sock: socket.socket) -> str:
    """That process in words: whose share of this component its connections are."""
    pid, uid, _ = _ids(sock)
    return f"process {pid} of user {uid}"


def _ids(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _process(sock: socket.socket, pid: int) -> int | None:
    """A descriptor of the process that connected, whatever its number means by now (SO_PEERPIDFD, Linux 6.5)."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    try:
        return os.pidfd_open(pid)  # who has the number now, a moment after it connected
    except OSError:
        return None


_SO_PEERPIDFD = 77
