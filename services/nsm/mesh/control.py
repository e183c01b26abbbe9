"""How the commands of a mesh talk to its supervisor: a JSON object a line, each way."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from .rundir import MeshCommandError, RunDir


class NoAnswerError(MeshCommandError):
    """The supervisor is there, but does not answer in time."""


def ask(run: RunDir, request: dict[str, Any], *, timeout: float = 60.0) -> dict[str, Any]:
    """What the supervisor of a mesh answers.

    Raises `MeshCommandError` if it is not there, or with what it objects; `NoAnswerError` after `timeout` seconds.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(str(run.control))
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as lines:
                line = lines.readline()
    except TimeoutError:
        message = f"the supervisor of mesh {run.name!r} does not answer; `nsm mesh down --name {run.name}` ends it"
        raise NoAnswerError(message) from None
    except OSError:
        raise MeshCommandError(f"mesh {run.name!r} is not up (there is nothing at {run.path})") from None
    if not line:
        raise MeshCommandError(f"mesh {run.name!r} went away")
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise MeshCommandError(reply["error"])
    return reply


def supervisor_of(run: RunDir) -> int | None:
    """The pid of a mesh's supervisor, as the kernel knows it: also of one that does not answer any more."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(run.control))
        except OSError:
            return None
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
