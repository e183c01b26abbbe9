"""The protocol between a mesh's commands and its supervisor: one JSON object per line, both ways."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from .rundir import MeshCommandError, RunDir


class NoAnswerError(MeshCommandError):
    """The supervisor exists, but does not respond in time."""


class NotThereError(MeshCommandError):
    """There is no supervisor: not yet, or no longer."""


def ask(run: RunDir, request: dict[str, Any], *, timeout: float = 60.0) -> dict[str, Any]:
    """The response of a mesh's supervisor.

    Raises `NotThereError`, `MeshCommandError` if it rejects the request, or `NoAnswerError` after `timeout` seconds.
    """
    try:
        reply = next(follow(run, request, timeout=timeout), None)
    except TimeoutError:
        message = f"the supervisor of mesh {run.name!r} does not respond; `{run.command('down')}` ends it"
        raise NoAnswerError(message) from None
    if reply is None:
        raise MeshCommandError(f"mesh {run.name!r} was taken down meanwhile")
    return reply


def follow(run: RunDir, request: dict[str, Any], *, timeout: float | None = None) -> Iterator[dict[str, Any]]:
    """The responses of a mesh's supervisor, as they arrive.

    Raises `NotThereError`, `MeshCommandError` if it rejects the request, or TimeoutError if a line takes too long.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(run.control))
            sock.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            raise
        except OSError:
            raise NotThereError(run.absence()) from None
        with sock.makefile("rb") as lines, contextlib.suppress(ConnectionError):
            for line in lines:
                reply: dict[str, Any] = json.loads(line)
                if "error" in reply and "event" not in reply:
                    raise MeshCommandError(reply["error"])
                yield reply


def supervisor_of(run: RunDir) -> int | None:
    """The pid of a mesh's supervisor, from the kernel: also if it no longer responds."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(run.control))
        except OSError:
            return None
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
