"""Where the view of a local mesh listens, and the token that readers need."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import Any

from .plan import Component
from .process import Process
from .rundir import RunDir

PORT = 7410
"""The port of the first mesh's view; others take the next free one."""
WITHOUT_VIEW = "NSM_MESH_WITHOUT_VIEW"
"""The variable of `nsm mesh up` by which a mesh has no view."""


class MeshView:
    """The address and the token of a mesh's view: a view that is started again has the same ones, if it can."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._token = run, ""
        self._asked = f"127.0.0.1:{PORT}"
        self._address = ""
        """Where it listens, or did before; empty until it has said so: another mesh may have the usual port."""

    def starting(self, part: Component) -> Component:
        """The component as it is to be started now: at the address where it was before. Raises OSError."""
        self._asked = self._address or self._asked
        return self.listening(part)

    def listening(self, part: Component) -> Component:
        """The component as it was started last, with an address besides its socket. Raises OSError."""
        if not self._token:
            self._token = secrets.token_hex(16)
            descriptor = os.open(self._run.view_token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._token)
        listen_on = f"{part.environment['NSM_LISTEN_ON']},tcp://{self._asked}"
        return replace(part, environment={**part.environment, "NSM_LISTEN_ON": listen_on})

    def described(self, process: Process) -> dict[str, Any]:
        """Its part of the status: the address for browsers, with the token, once it is known; and whether it runs."""
        for each in process.said.get("listen_on", ()):
            if isinstance(each, str) and each.startswith("http://"):
                self._address = each.removeprefix("http://")
        url = f"http://{self._address}/?token={self._token}" if self._address else ""
        return {"url": url, "pid": process.pid, "state": process.state, "last_warning": process.last}
