"""System calls that Python's standard library does not wrap: namespaces, mounts, details of files.

Each raises OSError. With a `what`, its text reads ``cannot <what>: <the kernel's reason>``.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x200, 0x20000, 0x10000000, 0x40000000
"""Kinds for `unshare` and `setns`: root and working directory, mounts, users, network (clone(2))."""
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
"""Flags of `mount` (mount(2))."""
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
"""Flags of `unmount` (umount2(2))."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
"""Options of `prctl` (prctl(2))."""
AT_FDCWD, AT_EMPTY_PATH, AT_STATX_DONT_SYNC = -100, 0x1000, 0x4000
_HANDLE, _LARGEST_HANDLE = struct.Struct("=Ii"), 128
"""Size of what follows, and its type."""
_libc = ctypes.CDLL(None, use_errno=True)
_Statx = ctypes.c_char * 256
"""The size of struct statx; computed once, since every request inspects files."""


def unshare(kinds: int, what: str = "") -> None:
    """Move this thread into new namespaces of `kinds`."""
    _check(_libc.unshare(kinds), what)


def setns(descriptor: int, kind: int, what: str = "") -> None:
    """Move this thread into the namespace of `descriptor`, which is of `kind`."""
    _check(_libc.setns(descriptor, kind), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "", what: str = "") -> None:
    """Mount `source` at `target`; `kind` is the file system type, empty if `flags` imply that there is none."""
    texts = os.fsencode(source), os.fsencode(target), kind.encode() or None
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None), what)


def unmount(target: str, flags: int = 0, what: str = "") -> None:
    """Unmount `target`."""
    _check(_libc.umount2(os.fsencode(target), flags), what)


def prctl(option: int, value: int | bytes, what: str = "") -> None:
    """Set `option` of this process (or thread)."""
    _check(_libc.prctl(option, value, 0, 0, 0), what)


def statx(file: int | str, mask: int) -> bytes:
    """The struct statx of an open descriptor, or of a path with links followed, from the kernel's cached attributes."""
    buffer = _Statx()
    at, path = (file, b"") if isinstance(file, int) else (AT_FDCWD, os.fsencode(file))
    flags = AT_STATX_DONT_SYNC | (0 if path else AT_EMPTY_PATH)
    _check(_libc.statx(at, path, flags, mask, buffer))
    return buffer.raw


def malloc_trim() -> None:
    """Give back the whole pages of what was freed; does nothing with a C library that cannot."""
    if (trim := getattr(_libc, "malloc_trim", None)) is not None:
        trim(0)


def file_handle(descriptor: int) -> bytes:
    """What names an open file without holding it (name_to_handle_at(2)); for namespaces since Linux 6.18."""
    buffer = ctypes.create_string_buffer(_HANDLE.size + _LARGEST_HANDLE)
    _HANDLE.pack_into(buffer, 0, _LARGEST_HANDLE, 0)
    mount_id = ctypes.c_int()
    _check(_libc.name_to_handle_at(descriptor, b"", buffer, ctypes.byref(mount_id), AT_EMPTY_PATH))
    return buffer.raw[: _HANDLE.size + _HANDLE.unpack_from(buffer)[0]]


def open_handle(like: int, handle: bytes, flags: int) -> int:
    """A descriptor of the file that has `handle`, on the file system of the descriptor `like`."""
    descriptor = int(_libc.open_by_handle_at(like, handle, flags))
    _check(min(descriptor, 0))
    return descriptor


def syscall(number: int, *arguments: object, what: str = "") -> int:
    """The result of system call `number`, for calls that the C library does not name. Bytes are passed by address."""
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    _check(min(result, 0), what)
    return result


def _check(result: int, what: str = "") -> None:
    if result:
        number = ctypes.get_errno()
        reason = os.strerror(number)
        raise OSError(number, f"cannot {what}: {reason}" if what else reason)
