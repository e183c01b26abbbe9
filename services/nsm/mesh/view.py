"""Where the view of a local mesh listens, and the token that readers need."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace

from .plan import Component
from .rundir import RunDir

PORT = 7410
"""The port of the first mesh's view; others take the next free one."""
_PORTS = 32
WITHOUT_VIEW = "NSM_MESH_WITHOUT_VIEW"
"""The variable of `nsm mesh up` by which a mesh has no view."""


class MeshView:
    """The address of a mesh's view, the same for as long as the mesh runs."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._port, self._token = run, 0, ""

    @property
    def url(self) -> str:
        """The address for browsers, with the token; empty before the view was started."""
        return f"http://127.0.0.1:{self._port}/?token={self._token}" if self._port else ""

    def listening(self, part: Component) -> Component:
        """The component with the port that it listens on besides its socket. Raises OSError if none is free."""
        if not self._port:
            self._port, self._token = _free_port(), secrets.token_hex(16)
            descriptor = os.open(self._run.view_token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._token)
        listen_on = f"{part.environment['NSM_LISTEN_ON']},tcp://127.0.0.1:{self._port}"
        return replace(part, environment={**part.environment, "NSM_LISTEN_ON": listen_on})


def _free_port() -> int:
    """A port at which nothing listens now."""
    for port in range(PORT, PORT + _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
