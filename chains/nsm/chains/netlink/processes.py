"""Which network namespaces are in use, as far as /proc shows it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Mapping

from nsm.chains.core import FileKey
from nsm.chains.core.descriptors import facts_of

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO: who is in there sees the machine's processes, all of them."""
_FRESH, _MOUNT_FRESH = 1.0, 0.2
"""Seconds for which processes are taken to be where they were seen, and for which mounts are taken to stay."""
_MOUNT = "mount"


class Processes:
    """What was seen in /proc. Used by one thread only."""

    def __init__(self) -> None:
        self._pids: dict[FileKey, list[int]] = {}
        self._seen_at = 0.0
        self._held: dict[FileKey, list[str]] = {}
        """By which descriptors, as their paths in /proc, a namespace was open; `_MOUNT` stands for mounts."""
        self._held_at = -_MOUNT_FRESH
        self._sees_all = _own_pid_namespace() == _FIRST_PID_NAMESPACE

    def look(self, *, fresh: bool = True) -> Mapping[FileKey, list[int]]:
        """The processes in each network namespace; `fresh` False: as they were a second ago, at the longest."""
        if fresh or time.monotonic() - self._seen_at > _FRESH:
            self._pids = _look()
            self._seen_at = time.monotonic()
        return self._pids

    def path(self, key: FileKey, *, fresh: bool = False) -> str | None:
        """Where a namespace can be opened, by one of its processes; None if none is seen."""
        for pid in self.look(fresh=fresh).get(key, ()):
            path = f"/proc/{pid}/ns/net"
            with contextlib.suppress(OSError):
                if facts_of(path).key == key:
                    return path
        return None if fresh else self.path(key, fresh=True)

    def is_deserted(self, key: FileKey, own: Collection[int]) -> bool:
        """Whether no process is in a namespace, and no mount or descriptor keeps it except the `own` ones.

        Cheap as long as something that kept it before still does, so that it may be asked often.
        """
        if self._is_still_held(key, own) or key in self.look():
            return False
        self._held, self._held_at = _held(own), time.monotonic()
        return key not in self._held

    def _is_still_held(self, key: FileKey, own: Collection[int]) -> bool:
        holders = self._held.get(key, ())
        if _MOUNT in holders and time.monotonic() - self._held_at < _MOUNT_FRESH:
            return True
        ours = {f"/proc/{os.getpid()}/fd/{number}" for number in own}
        return any(_leads_to(holder, key) for holder in holders if holder != _MOUNT and holder not in ours)

    @property
    def sees_all(self) -> bool:
        """Whether a namespace without a process here has none anywhere."""
        return self._sees_all


def _look() -> dict[FileKey, list[int]]:
    device = os.stat("/proc/self/ns/net").st_dev
    found: dict[FileKey, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError):  # it has ended, or is another user's
                inode = int(os.readlink(f"/proc/{name}/ns/net")[len("net:[") : -1])
                found.setdefault((device, inode), []).append(int(name))
    return found


def _held(own: Collection[int]) -> dict[FileKey, list[str]]:
    """The namespaces that are open or mounted, and by what; our `own` descriptors do not count."""
    device, us = os.stat("/proc/self/ns/net").st_dev, str(os.getpid())
    found: dict[FileKey, list[str]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            for path, target in _open_files(name, own if name == us else ()):
                if target.startswith("net:["):
                    found.setdefault((device, int(target[len("net:[") : -1])), []).append(path)
    for process in ("self", "1"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/mountinfo") as mounts:
            for line in mounts:
                root = line.split(" ", 4)[3]
                if root.startswith("net:["):
                    found.setdefault((device, int(root[len("net:[") : -1])), []).append(_MOUNT)
    return found


def _leads_to(path: str, key: FileKey) -> bool:
    """Whether the descriptor at a path is of that namespace; it may be another process's number by now."""
    with contextlib.suppress(OSError):
        return os.readlink(path) == f"net:[{key[1]}]"
    return False


def _open_files(process: str, without: Collection[int]) -> Iterator[tuple[str, str]]:
    folder = f"/proc/{process}/fd"
    with contextlib.suppress(OSError):
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):
                if int(number) not in without:
                    yield f"{folder}/{number}", os.readlink(f"{folder}/{number}")


def _own_pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
