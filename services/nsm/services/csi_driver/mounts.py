"""Read-only binds of one folder at another, by mount(2) itself: an image needs no `mount` program for that."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND = 32, 4096
_READ_ONLY = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_UMOUNT_NOFOLLOW, _MNT_DETACH = 8, 2


def shows(source: str, target: str) -> bool:
    """Whether `target` is a read-only mount of the folder `source`."""
    return (
        is_mounted(target)
        and os.path.samestat(os.stat(source), os.stat(target))
        and bool(os.statvfs(target).f_flag & os.ST_RDONLY)
    )


def bind_read_only(source: str, target: str) -> None:
    """Show the folder `source` at the folder `target`; nothing can be written, executed or opened as a device there.

    A socket in it can still be connected to: that is no change of the file system. Raises OSError, and then nothing
    is mounted.
    """
    _mount(source, target, _MS_BIND)
    try:
        _mount(source, target, _MS_REMOUNT | _MS_BIND | _READ_ONLY)
    except OSError:
        unmount(target)
        raise


def unmount(target: str) -> None:
    """Take away what is mounted at `target`, layer by layer; nothing is no error. Raises OSError.

    A process that still has a file open there keeps it until it ends.
    """
    while is_mounted(target):
        if _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW | _MNT_DETACH):
            raise _error(f"unmount {target}")


def is_mounted(target: str) -> bool:
    """Whether something is mounted at `target`, in this process's mount namespace (proc(5), mountinfo)."""
    wanted = os.path.realpath(target)
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(_unescaped(line.split(" ")[4]) == wanted for line in lines)


def _unescaped(field: str) -> str:
    """Blanks, tabs, line ends and backslashes stand in mountinfo as three octal digits."""
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _mount(source: str, target: str, flags: int) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None):
        raise _error(f"mount {source} at {target}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"cannot {what}: {os.strerror(number)}")
