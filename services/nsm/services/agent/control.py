"""The protocol of an agent's socket: one JSON object each way, for one connection."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from nsm.chains.core import InvalidRequest, TimedOut, Unavailable

SOCKET = "agent.sock"
LONGEST = 1 << 20
_TIMEOUT = 5.0
ATTACH, DETACH, LIST = "attach", "detach", "list"


class NoAgent(Unavailable):
    """No agent listens there."""


def ask(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What the agent of `folder` answers. Raises `NoAgent`, `TimedOut`, and `InvalidRequest` with what it refuses."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(str(folder / SOCKET))
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = receive(sock)
        except TimeoutError:
            raise TimedOut(f"the agent at {folder / SOCKET} does not answer") from None
        except OSError as error:
            raise NoAgent(f"no agent listens at {folder / SOCKET}: {error.strerror or error}") from None
    if answer is None:
        raise NoAgent(f"the agent at {folder / SOCKET} ended")
    if "error" in answer:
        raise InvalidRequest(str(answer["error"]))
    return answer


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """One object; None if the peer is gone. Raises OSError, ValueError."""
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(1 << 16)
        if not part:
            return None
        data += part
        if len(data) > LONGEST:
            raise ValueError("the message is too long")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("the message is not an object")
    return found
