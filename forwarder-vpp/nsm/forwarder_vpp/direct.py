"""Wires between two memif workloads of one node: no packet passes VPP, only their control messages are relayed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from nsm.chains.core import Unavailable, shielded

from .names import CLIENT, Names

_RELAY = str(Path(__file__).with_name("relay.py"))
_STARTING = 10.0


class Relays:
    """The relays of an owner: processes that outlive it, and are found by their command line."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._own: dict[str, subprocess.Popen[bytes]] = {}
        self._former: dict[str, tuple[int, str]] | None = None
        """Those of an earlier process, looked for once."""

    async def provide(
        self, connection_id: str, made_of: tuple[object, ...], sockets: tuple[str, str], namespaces: tuple[int, int]
    ) -> None:
        """The relay of a connection: one that is there if it is made of the same, else a new one.

        `sockets` are where the client connects to, and where the endpoint listens; `namespaces` are open descriptors of
        theirs. Raises `Unavailable`.
        """
        tag = self._names.tag(CLIENT, made_of, connection_id)
        there = self.find().get(tag.connection_id)
        if there is not None and there[1] == tag.text:
            return
        await self.remove(tag.connection_id)
        names = [*sockets, *map(str, namespaces)]
        command = [sys.executable, "-I", _RELAY, tag.text, *names]
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and outlives this loop
            command, pass_fds=namespaces, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._own[tag.connection_id] = process
        try:
            async with asyncio.timeout(_STARTING):
                said = await asyncio.to_thread(_first_line, process)
            if said != "ready":
                raise Unavailable(f"the endpoint's memif socket {sockets[1]} cannot be reached: {said}")
        except BaseException:
            await shielded(self.remove(tag.connection_id), name="end of a relay")
            raise

    def is_running(self, id_in_tag: str) -> bool:
        """Whether a connection has its relay."""
        process = self._own.get(id_in_tag)
        return process.poll() is None if process is not None else id_in_tag in self.find()

    async def remove(self, id_in_tag: str) -> None:
        """End the relay of a connection, made by any process of the owner."""
        if (process := self._own.pop(id_in_tag, None)) is not None:
            process.kill()
            await asyncio.to_thread(process.wait)
            return
        if self._former is None:
            self._former = self.find()
        if (there := self._former.pop(id_in_tag, None)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(there[0], signal.SIGKILL)

    def release(self) -> None:
        """Leave the relays running: they are no children to wait for any more."""
        for process in self._own.values():
            process.returncode = 0

    def find(self) -> dict[str, tuple[int, str]]:
        """Process id and tag of each relay, by what stands for its connection in tags."""
        found: dict[str, tuple[int, str]] = {}
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = each.read_bytes().split(b"\0")
                if len(words) > 4 and words[2] == _RELAY.encode():
                    tag = self._names.read(words[3].decode(errors="replace"))
                    if tag is not None:
                        found[tag.connection_id] = int(each.parent.name), tag.text
        return found


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    with process.stdout as output:
        return output.readline().decode(errors="replace").strip() or "it ended"
