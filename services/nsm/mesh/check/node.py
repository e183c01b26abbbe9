"""The manager of this node, and the socket that leads to it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from .model import Finding, error, ok, warning

DEFAULT = "unix:///var/lib/networkservicemesh/nsm.io.sock"


def manager(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether components find it; a missing manager is an error only if its address is configured."""
    url = environment.get("NSM_CONNECT_TO", DEFAULT)
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        yield _socket(Path(rest), is_configured="NSM_CONNECT_TO" in environment)
    else:
        yield _port(url, rest if scheme in {"tcp", "dns"} else url)


def _socket(path: Path, *, is_configured: bool) -> Finding:
    try:
        found = path.stat()
    except FileNotFoundError:
        return _absent(path, is_configured=is_configured)
    except OSError as failure:
        return error("manager", f"{path} cannot be reached: {failure.strerror}", _open_folders(path))
    if not stat.S_ISSOCK(found.st_mode):
        return error("manager", f"{path} is not a socket", "remove it, or set NSM_CONNECT_TO to the manager's socket")
    return _connect(path, found)


def _absent(path: Path, *, is_configured: bool) -> Finding:
    if is_configured:
        hint = "start the manager (nsm nsmgr), or set NSM_CONNECT_TO to its socket"
        return error("manager", f"there is no socket at {path} (NSM_CONNECT_TO)", hint)
    folder = next(folder for folder in path.parents if folder.exists())
    if os.access(folder, os.W_OK | os.X_OK):
        hint = "start one (nsm nsmgr), or set NSM_CONNECT_TO; the local mesh has its own"
        return warning("manager", f"no manager runs on this node: {path} does not exist, but could be created", hint)
    hint = f"let root create {path.parent} for the manager's user, or listen elsewhere (NSM_LISTEN_ON, NSM_CONNECT_TO)"
    return warning("manager", f"no manager runs on this node, and this user may not create {path}", hint)


def _connect(path: Path, found: os.stat_result) -> Finding:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(3)
        try:
            sock.connect(str(path))
        except PermissionError:
            mode, hint = (
                stat.filemode(found.st_mode),
                "the manager's NSM_SOCKET_MODE and NSM_SOCKET_GROUP control access",
            )
            return error("manager", f"this user may not connect to {path} ({mode}, group {found.st_gid})", hint)
        except OSError as failure:
            hint = f"the manager that created it has stopped; start it again, or remove {path}"
            return error("manager", f"nothing listens at {path}: {failure.strerror or failure}", hint)
    return ok("manager", f"a manager listens at {path}")


def _port(url: str, place: str) -> Finding:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]/"), int(port)), timeout=3).close()
    except (OSError, ValueError) as failure:
        hint = "start the manager there, or set NSM_CONNECT_TO to where it listens"
        return error("manager", f"nothing listens at {url}: {getattr(failure, 'strerror', None) or failure}", hint)
    return ok("manager", f"a manager listens at {url}")


def _open_folders(path: Path) -> str:
    closed = next((folder for folder in reversed(path.parents) if not os.access(folder, os.X_OK)), path.parent)
    return f"this user may not enter {closed}; let its owner open it (chmod o+x), or use another socket"
