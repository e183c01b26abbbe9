"""Finds the first process of a container: by the sockets of Docker and Podman, by the state of containerd."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from nsm.chains.core import Conflict, MeshError, NotFound, Unavailable

DOCKER, PODMAN, CONTAINERD = "docker", "podman", "containerd"
RUNTIMES = (DOCKER, PODMAN, CONTAINERD)
_TIMEOUT = 2.0
_LARGEST = 16 << 20
_SHORTEST_ID = 6


@dataclass(frozen=True)
class Container:
    """A container that was found. `pid` is 0 while it does not run."""

    runtime: str
    id: str
    name: str
    pid: int


@dataclass(frozen=True)
class Runtimes:
    """Where the runtimes of this machine are: sockets of the API of Docker, which Podman has too, and state folders."""

    sockets: Sequence[tuple[str, str]] = ()
    """Runtime and path."""
    tasks: Sequence[str] = (
        "/run/containerd/io.containerd.runtime.v2.task",
        "/run/docker/containerd/daemon/io.containerd.runtime.v2.task",
        "/run/k3s/containerd/io.containerd.runtime.v2.task",
    )
    """Folders of containerd, with a folder for each of its namespaces, and in that one for each container."""
    names: str = "/var/lib/nerdctl"
    """Where nerdctl keeps the names of containers of containerd."""

    @classmethod
    def of_machine(cls) -> Runtimes:
        """Those of this machine and user."""
        docker = docker_host() or "/var/run/docker.sock"
        podman = [f"{os.environ.get('XDG_RUNTIME_DIR', '/run')}/podman/podman.sock", "/run/podman/podman.sock"]
        return cls([(DOCKER, docker), *((PODMAN, each) for each in dict.fromkeys(podman))])

    def at(self, docker: str) -> Runtimes:
        """The same, with Docker at another socket, unless that is empty."""
        if not docker:
            return self
        return replace(self, sockets=[(DOCKER, docker), *(each for each in self.sockets if each[0] != DOCKER)])

    def find(self, name: str, runtime: str = "") -> Container:
        """The container `name`: its name, id, or the unique beginning of its id; in one `runtime`, or in any.

        Raises `NotFound`; `Conflict` if several runtimes have one; `Unavailable` if a runtime does not answer.
        """
        found, faults = dict[str, Container](), list[str]()
        for each in self._all(name, runtime, faults):
            found.setdefault(each.id, each)  # Docker's are in the state of containerd too
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            kinds = ", ".join(f"{each.runtime} ({each.id[:12]})" for each in found.values())
            raise Conflict(f"{name!r} names {len(found)} containers: {kinds}; write the id, or --runtime")
        if faults:
            raise Unavailable(f"no container {name!r} was found, and {'; '.join(faults)}")
        where = runtime or ", ".join(RUNTIMES)
        raise NotFound(f"there is no container {name!r} (looked for in {where})")

    def _all(self, name: str, runtime: str, faults: list[str]) -> Iterator[Container]:
        for kind, path in self.sockets:
            if runtime in ("", kind) and os.path.exists(path):
                try:
                    if (found := _asked(kind, path, name)) is not None:
                        yield found
                except MeshError as error:
                    faults.append(str(error))
        if runtime in ("", CONTAINERD):
            yield from self._of_containerd(name)

    def _of_containerd(self, name: str) -> Iterator[Container]:
        ids = {name, *self._named(name)}
        for root in self.tasks:
            for space in _folders(Path(root)):
                for folder in _folders(space):
                    is_begun = len(name) >= _SHORTEST_ID and folder.name.startswith(name)
                    if folder.name in ids or is_begun:
                        yield Container(CONTAINERD, folder.name, name, _pid_in(folder / "init.pid"))

    def _named(self, name: str) -> Iterator[str]:
        """The ids of containers that nerdctl calls `name`: in ``<address>/names/<namespace>/<name>``."""
        if "/" in name or name.startswith("."):
            return
        for path in Path(self.names).glob(f"*/names/*/{quote(name, safe='')}"):
            with suppress(OSError, UnicodeDecodeError):
                yield path.read_text().strip()


def docker_host() -> str:
    """The socket that DOCKER_HOST names, as Docker's own commands read it; empty if it names none."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else ""


def _folders(path: Path) -> list[Path]:
    with suppress(OSError):
        return [each for each in path.iterdir() if each.is_dir()]
    return []


def _pid_in(path: Path) -> int:
    with suppress(OSError, ValueError):
        pid = int(path.read_text())
        return pid if os.path.exists(f"/proc/{pid}") else 0
    return 0


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _asked(kind: str, path: str, name: str) -> Container | None:
    """The container as the runtime reports it. Raises `Unavailable`."""
    connection = _Unix(path)
    try:
        connection.request("GET", f"/containers/{quote(name, safe='')}/json")
        answer = connection.getresponse()
        body = answer.read(_LARGEST)
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        if answer.status != http.HTTPStatus.OK:
            raise Unavailable(f"{kind} at {path} answers with {answer.status}")
        told = json.loads(body)
        state = told["State"]
        pid = int(state["Pid"]) if state["Running"] else 0
        return Container(kind, str(told["Id"]), str(told["Name"]).removeprefix("/"), pid)
    except OSError as error:
        raise Unavailable(f"{kind} at {path} cannot be asked: {error.strerror or error}") from None
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        raise Unavailable(f"{kind} at {path} gives an answer that cannot be read") from None
    finally:
        connection.close()
