"""Read-only bind mounts of folders, by system calls, so that the image needs no `mount` program.

A mount propagates to the kubelet's mount namespace with its attributes at that moment: a bind mount that is made
read-only later stays writable there. So it is made read-only before it is attached (open_tree, mount_setattr and
move_mount; Linux 5.12).
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from nsm.chains import libc

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8


class _Attributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def shows(source: str, target: str) -> bool:
    """Whether `target` is a read-only mount of the folder `source`."""
    return (
        is_mounted(target)
        and os.path.samestat(os.stat(source), os.stat(target))
        and bool(os.statvfs(target).f_flag & os.ST_RDONLY)
    )


def bind_read_only(source: str, target: str) -> None:
    """Bind-mount the folder `source` at the folder `target`, read-only, without executables and devices.

    Sockets in it can still be connected to, which does not change the file system. If it raises OSError, nothing is
    mounted.
    """
    tree = libc.syscall(
        _OPEN_TREE, libc.AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC, what=f"clone {source}"
    )
    try:
        _make_read_only(tree)
        libc.syscall(
            _MOVE_MOUNT, tree, b"", libc.AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH, what=f"mount {target}"
        )
    finally:
        os.close(tree)


def unmount(target: str) -> None:
    """Unmount everything at `target`; does nothing if nothing is mounted. Raises OSError.

    A process with an open file there keeps the mount alive until it ends.
    """
    while is_mounted(target):
        libc.unmount(target, libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH, f"unmount {target}")


def is_mounted(target: str) -> bool:
    """Whether something is mounted at `target`, in this process's mount namespace (proc(5), mountinfo).

    Only a line feed ends a line: a pod's `subPath`, which occurs there too, may contain other line breaks.
    """
    wanted = os.fsencode(os.path.realpath(target))
    lines = Path("/proc/self/mountinfo").read_bytes().rstrip(b"\n").split(b"\n")
    return any(_unescaped(line.split(b" ")[4]) == wanted for line in lines)


def _unescaped(field: bytes) -> bytes:
    """Decode the octal escapes of mountinfo, for blanks, tabs, line feeds and backslashes."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def _make_read_only(tree: int) -> None:
    """Set the attributes of a mount that is not attached yet.

    Before Linux 5.12 it keeps the attributes of its source, which suffices if that is mounted read-only.
    """
    attributes = _Attributes(_RDONLY | _NOSUID | _NODEV | _NOEXEC)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    try:
        libc.syscall(
            _MOUNT_SETATTR, tree, b"", libc.AT_EMPTY_PATH, ctypes.byref(attributes), size, what="make a mount read-only"
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        if not os.fstatvfs(tree).f_flag & os.ST_RDONLY:
            raise OSError(error.errno, f"{error.strerror}; mount the folder read-only into this container") from None
