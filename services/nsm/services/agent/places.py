"""What wires can be attached to: a process, a container, a network namespace with a path."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from nsm.chains import libc
from nsm.chains.core import InvalidRequest, NotFound, Unavailable

from .containers import Runtimes

PID, CONTAINER, NETNS = "pid", "container", "netns"
_NS_GET_NSTYPE = 0xB703
_STARTED = 19
"""Which word behind the name in /proc/PID/stat is the time at which the process started."""


@dataclass(frozen=True)
class Place:
    """What to attach to; `value` is a process id, a container's name or id, or a path."""

    kind: str
    value: str
    runtime: str = ""
    started: int = 0
    """When the process with that id started, in ticks since boot: a later process may have its id."""
    docker: str = ""
    """Docker's socket, if it is not the usual one."""

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Place:
        """From JSON. Raises `InvalidRequest`."""
        try:
            place = cls(**found)
        except TypeError:
            raise InvalidRequest("a place has kind, value, runtime, started and docker") from None
        if place.kind not in (PID, CONTAINER, NETNS) or not place.value:
            raise InvalidRequest(f"{place.kind!r} is not a kind of place")
        return place

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{'process' if self.kind == PID else 'namespace' if self.kind == NETNS else 'container'} {self.value}"


@dataclass
class Entrance:
    """An open network namespace, and the process whose end is the end of the place; `close` it."""

    network: int
    process: int | None
    """A descriptor of the process, readable when it has ended."""
    pid: int

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.network)
        if self.process is not None:
            os.close(self.process)


def place_of_pid(pid: int) -> Place:
    """The process that has `pid` now. Raises `NotFound`."""
    return Place(PID, str(pid), started=_started(pid))


def name_of(place: Place, runtimes: Runtimes, end: str = "") -> str:
    """A name in a mesh for what is there: that of the container, of the program with its id, of the file, and `end`.

    Raises `MeshError`.
    """
    if place.kind == PID:
        with suppress(OSError), open(f"/proc/{place.value}/comm") as file:
            return _as_name(f"{file.read().strip()}-{place.value}{end}")
        raise NotFound(f"there is no process {place.value}")
    if place.kind == CONTAINER:
        return _as_name(runtimes.at(place.docker).find(place.value, place.runtime).name + end)
    return _as_name(os.path.basename(place.value.rstrip("/")) + end)


def _as_name(text: str) -> str:
    letters = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-.") else "-" for letter in text)
    return letters.strip("-.")[:63] or "workload"


def enter(place: Place, runtimes: Runtimes) -> Entrance:
    """Open the namespace of `place`.

    Raises `NotFound` if it is gone for good, `Unavailable` if it may come back, `InvalidRequest` if it cannot be one.
    """
    if place.kind == NETNS:
        return Entrance(_opened(place.value), None, 0)
    if place.kind == PID:
        return _of_process(int(place.value), place.started)
    container = runtimes.at(place.docker).find(place.value, place.runtime)
    if not container.pid:
        raise Unavailable(f"container {container.name!r} does not run")
    try:
        return _of_process(container.pid, 0)
    except NotFound:
        raise Unavailable(f"container {container.name!r} has just ended") from None


def _of_process(pid: int, started: int) -> Entrance:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        raise NotFound(f"there is no process {pid}") from None
    try:
        if started and _started(pid) != started:
            raise NotFound(f"process {pid} has ended; another one has its id")
        return Entrance(_opened(f"/proc/{pid}/ns/net"), process, pid)
    except BaseException:
        os.close(process)
        raise


def _opened(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unavailable(f"there is no network namespace at {path}") from None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror or error}") from None
    try:
        if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == libc.CLONE_NEWNET:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    raise InvalidRequest(f"{path} is not a network namespace")


def _started(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_STARTED])
    except (OSError, IndexError):
        raise NotFound(f"there is no process {pid}") from None
