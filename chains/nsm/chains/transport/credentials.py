"""The process at the other end of a unix socket, according to the kernel."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """The kernel's facts about the process at the other end of a unix socket."""

    pid: int
    """Its pid in this process's PID namespace; 0 if it is not visible there."""
    uid: int
    gid: int
    process: int | None = None
    """A descriptor of that very process (pidfd), open as long as the connection; None if it had ended already."""

    def is_alive(self) -> bool:
        """Whether that process has not ended yet: until then its `pid` is not reused."""
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
    """The credentials of the process that connected `sock`."""
    pid, uid, gid = _ids(sock)
    return Credentials(pid, uid, gid, _process(sock, pid))


def caller_of(sock: socket.socket) -> str:
    """A name for that process: the holder of its connections' share of this component."""
    pid, uid, _ = _ids(sock)
    return f"process {pid} of user {uid}"


def _ids(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _process(sock: socket.socket, pid: int) -> int | None:
    """A descriptor of the process that connected, even if its number was reused (SO_PEERPIDFD, Linux 6.5)."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    try:
        return os.pidfd_open(pid)  # the process with that number now, a moment after it connected
    except OSError:
        return None


_SO_PEERPIDFD = 77
