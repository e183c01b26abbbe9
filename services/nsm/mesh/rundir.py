"""Where a running mesh keeps its sockets and logs, and how its commands find it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import MeshError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,18}[A-Za-z0-9])?")


class MeshCommandError(MeshError):
    """A command of the local mesh cannot do what was asked; the text says why and what to do."""


@dataclass(frozen=True)
class RunDir:
    """The folder of one mesh: only its user may look inside."""

    name: str
    path: Path

    @classmethod
    def of(cls, name: str) -> RunDir:
        """The folder of the mesh `name`. Raises `MeshCommandError` for a name that cannot be one."""
        if not _NAME.fullmatch(name):
            raise MeshCommandError(f"mesh name {name!r}: expected up to 20 letters, digits and -")
        if os.getuid() == 0:
            base = Path("/run/nsm-mesh")
        else:
            runtime = os.environ.get("XDG_RUNTIME_DIR", "")
            usable = bool(runtime) and os.access(runtime, os.W_OK)
            base = Path(runtime, "nsm-mesh") if usable else Path(f"/tmp/nsm-mesh-{os.getuid()}")  # noqa: S108 - 0700 below
        return cls(name, base / name)

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.path / "control"

    def socket_of(self, component: str) -> Path:
        """Where a component listens."""
        return self.path / f"{component}.sock"

    def identity_of(self, component: str) -> Path:
        """The Workload API socket of a component."""
        return self.path / "id" / component

    def log_of(self, component: str) -> Path:
        """The log of a component."""
        return self.path / "log" / component

    def create(self) -> None:
        """Make the folder; what a supervisor that was killed left there goes first."""
        self.remove()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.parent.stat().st_uid != os.getuid():
            raise MeshCommandError(f"{self.path.parent} belongs to somebody else; remove it or set XDG_RUNTIME_DIR")
        for folder in (self.path, self.path / "id", self.path / "log"):
            folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder, and that of all meshes if this was the last one."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def is_up(self) -> bool:
        """Whether a supervisor answers there."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.control))
            except OSError:
                return False
        return True
