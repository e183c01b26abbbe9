"""Explains why the kernel denies access to a unix socket, and what to set."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def denied(path: str) -> str:
    """Our user, what denies access to the socket at `path`, and how to allow it; empty if access is allowed by now."""
    socket = Path(path)
    for barrier in [*reversed(socket.absolute().parents), socket]:
        wanted = os.W_OK if barrier == socket else os.X_OK
        try:
            if os.access(barrier, wanted, effective_ids=True):
                continue
            found = barrier.stat()
        except OSError:
            return ""
        may_not = "may not write" if barrier == socket else "may not enter"
        return f"{_us()} {may_not} {_of(barrier, found)}; {_remedy(found, wanted)}"
    return ""


def _us() -> str:
    groups = sorted({os.getegid(), *os.getgroups()})
    return f"this process (user {os.geteuid()}, group{'s' * (len(groups) > 1)} {', '.join(map(str, groups))})"


def _of(path: Path, found: os.stat_result) -> str:
    return f"{path} (user {found.st_uid}, group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o})"


def _remedy(found: os.stat_result, wanted: int) -> str:
    opened = "grant access on the server's side: NSM_SOCKET_GROUP, NSM_SOCKET_MODE; in Kubernetes by open-socket"
    if not found.st_mode >> 3 & wanted:
        return opened
    group = found.st_gid
    return f"run it in group {group} (securityContext.runAsGroup: {group} of a pod or container), or {opened}"
