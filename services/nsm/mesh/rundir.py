"""The folder of a running mesh, with its sockets and logs, by which commands find it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .namespaces import Mark, place_on_device

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,18}[A-Za-z0-9])?")
DEFAULT_NAME = "default"
_MARK = "MESH_WORKLOAD"
_LONGEST_SOCKET_PATH, _LONGEST_SOCKET_NAME = 107, 48


class MeshCommandError(Exception):
    """A command of the local mesh failed; the text says why and what to do."""


@dataclass(frozen=True)
class RunDir:
    """The folder of one mesh, accessible only to its user.

    The processes of a mesh hold a lock on it; a folder without a lock is a leftover of a killed mesh.
    """

    name: str
    path: Path

    @classmethod
    def of(cls, name: str) -> RunDir:
        """The folder of the mesh `name`. Raises `MeshCommandError` for an invalid name."""
        if not _NAME.fullmatch(name):
            raise MeshCommandError(f"mesh name {name!r}: expected up to 20 letters, digits and -")
        return cls(name, _base() / name)

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.path / "control"

    @property
    def traces(self) -> Path:
        """The folder for the components' spans."""
        return self.path / "traces"

    @property
    def temporary(self) -> Path:
        """The components' folder for temporary files."""
        return self.path / "tmp"

    @property
    def attachments(self) -> Path:
        """The folder of the agent that keeps what is attached."""
        return self.path / "agent"

    def entries_of(self, issuer: str) -> Path:
        """The file of an issuer's identity entries."""
        return self.path / f"{issuer}.entries"

    def authority_of(self, issuer: str) -> Path:
        """The file of an issuer's authority, which stays the same if the issuer restarts."""
        return self.path / f"{issuer}.pem"

    def bundle_of(self, issuer: str) -> Path:
        """The file of an issuer's bundle, for the issuers of other domains."""
        return self.path / f"{issuer}.bundle.json"

    @property
    def records(self) -> Path:
        """The file of the DNS server's records."""
        return self.path / "records.yaml"

    def uplinks_of(self, node: str) -> Path:
        """The file of a node's interfaces for breakouts."""
        return self.path / f"uplinks-{node}.yaml"

    def socket_of(self, component: str) -> Path:
        """The socket of a component."""
        return self.path / f"{component}.sock"

    def identity_of(self, component: str) -> Path:
        """The Workload API socket of a component."""
        return self.path / "id" / component

    @property
    def view_token(self) -> Path:
        """The file of the token that readers of the view need, unless they use its socket."""
        return self.path / "view.token"

    def resolv_conf_of(self, workload: str) -> Path:
        """A workload's /etc/resolv.conf."""
        return self.path / "resolv" / workload

    def log_of(self, component: str) -> Path:
        """The log of a component."""
        return self.path / "log" / component

    @property
    def kept_logs(self) -> Path:
        """The logs of a mesh that failed to start, kept until another mesh of that name starts."""
        return self.path.with_name(f"{self.name}.logs")

    def mark_of(self, workload: str) -> tuple[str, str]:
        """An environment variable that marks the commands in a workload, whichever namespaces they enter."""
        return _MARK, f"{self.path}:{workload}"

    def marks(self, workloads: Iterable[str] | None = None) -> list[Mark]:
        """Marks of all processes of workloads: by that variable or by their mounts. None: of all workloads."""
        places = place_on_device(str(self.path / "resolv"))
        if workloads is None:
            return [Mark(f"{_MARK}={self.path}:".encode(), f" {places}/".encode())]
        return [Mark(f"{'='.join(self.mark_of(name))}\0".encode(), f" {places}/{name} ".encode()) for name in workloads]

    def claim(self) -> int | None:
        """Create the folder, and return the descriptor that holds its lock; None if the mesh is running already.

        Leftovers of a killed mesh are removed first. Raises `MeshCommandError` if the folder cannot be created.
        """
        if len(str(self.path)) + _LONGEST_SOCKET_NAME > _LONGEST_SOCKET_PATH:
            raise MeshCommandError(
                f"{self.path} is too long for the path of a socket; set XDG_RUNTIME_DIR to a shorter one"
            )
        try:
            with self._alone():
                if self.is_held():
                    return None
                shutil.rmtree(self.path, ignore_errors=True)
                self.forget_logs()
                self.path.mkdir(mode=0o700)
                for folder in ("id", "log", "resolv", "tmp"):
                    (self.path / folder).mkdir(mode=0o700)
                descriptor = _open_folder(self.path)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                return descriptor
        except OSError as error:
            raise MeshCommandError(f"cannot create {self.path}: {error.strerror}") from None

    def is_held(self) -> bool:
        """Whether a process of the mesh is alive, also while it starts or stops."""
        try:
            descriptor = _open_folder(self.path)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def wait_released(self, timeout: float) -> bool:
        """Wait until no process of the mesh is alive; False if some still are after `timeout` seconds."""
        end = time.monotonic() + timeout
        while held := self.is_held():
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        return not held

    def remove(self) -> None:
        """Remove the folder, and the folder of all meshes if this was the last one."""
        with contextlib.suppress(OSError), self._alone():
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.parent.rmdir()

    def keep_logs(self) -> None:
        """Keep the logs when the folder is removed."""
        with contextlib.suppress(OSError):
            self.forget_logs()
            os.rename(self.path / "log", self.kept_logs)

    def forget_logs(self) -> None:
        """Remove the logs of a mesh that failed to start."""
        shutil.rmtree(self.kept_logs, ignore_errors=True)

    def absence(self) -> str:
        """The error text for a mesh that is not up."""
        if self.kept_logs.exists():
            return f"mesh {self.name!r} is not up: it failed; `{self.command('logs')}` shows why"
        return f"mesh {self.name!r} is not up (there is nothing at {self.path})"

    def command(self, name: str) -> str:
        """The command line of a command for this mesh."""
        return f"nsm mesh {name}" + ("" if self.name == DEFAULT_NAME else f" --name {self.name}")

    def is_up(self) -> bool:
        """Whether a supervisor listens there."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.control))
            except OSError:
                return False
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock while a mesh of this user is created or removed."""
        base = self.path.parent
        while True:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(base)
            descriptor = _open_folder(base)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), base.lstat()):
                    break
            os.close(descriptor)  # it was removed while we waited
        try:
            yield
        finally:
            os.close(descriptor)


def _base() -> Path:
    """The folder of all meshes of this user."""
    if os.getuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run/nsm-mesh")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = bool(runtime) and os.access(runtime, os.W_OK)
    return Path(runtime, "nsm-mesh") if usable else Path(f"/tmp/nsm-mesh-{os.getuid()}")  # noqa: S108 - checked below


def _check_private(folder: Path) -> None:
    """Refuse a folder that another user may have created first."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise MeshCommandError(f"{folder} is accessible to other users; remove it or set XDG_RUNTIME_DIR")


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
