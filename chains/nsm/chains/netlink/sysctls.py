"""Settings of a network namespace that netlink cannot change: files below /proc/sys.

In most containers /proc/sys is read-only. A process with CAP_SYS_ADMIN, as forwarders have, can reach the same
settings by a mount of its own, which no path leads to.
"""

from __future__ import annotations

import errno
import os
from functools import cache

from nsm.chains import libc

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""System calls: the same numbers on every architecture."""
_CLOEXEC, _CREATE, _NO_SUID_DEV_EXEC = 1, 6, 0x2 | 0x4 | 0x8


def write(name: str, text: str, *, anyway: bool = False) -> None:
    """Set one, such as ``net/ipv4/ping_group_range``, in the namespace of this thread. Raises OSError.

    `anyway`: even if /proc/sys is read-only. That is for our own interfaces: the settings of a workload's namespace
    are not the forwarder's to change then.
    """
    try:
        _write(f"/proc/sys/{name}", text)
    except OSError as error:
        if error.errno != errno.EROFS or not anyway:
            raise
        _write(f"/proc/self/fd/{_own_proc()}/sys/{name}", text)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


@cache
def _own_proc() -> int:
    """A descriptor of a /proc that can be written to, for as long as this process lives."""
    kind = libc.syscall(_FSOPEN, b"proc", _CLOEXEC)
    try:
        libc.syscall(_FSCONFIG, kind, _CREATE, None, None, 0)
        return libc.syscall(_FSMOUNT, kind, _CLOEXEC, _NO_SUID_DEV_EXEC)
    finally:
        os.close(kind)
