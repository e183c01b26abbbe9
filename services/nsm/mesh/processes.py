"""Starts the components of a mesh, reads their output, and notices when they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from nsm.services.nse_supplier.local import WANTED

from .logfile import LogFile, parsed
from .plan import Component
from .process import Process
from .rundir import MeshCommandError, RunDir
from .zygote import Start, Zygote

STOP_TIMEOUT = 10.0
_LAST_WORDS = 1.0
"""Seconds to wait for the rest of an ended component's output: a child may keep the pipe open."""
_TOLD = {"wire up", "wire made", "no wire yet"}

Tell = Callable[[Mapping[str, Any]], None]
"""Receives events as they happen: objects with `event` and its values."""


class Processes:
    """The started components, by name.

    `tell` receives events; `stopping` is set when the process that starts components is gone.
    """

    def __init__(self, run: RunDir, zygote: Zygote, tell: Tell, stopping: asyncio.Event, log_level: str) -> None:
        self._run, self._zygote, self._tell, self._stopping = run, zygote, tell, stopping
        self._log_level = log_level
        self.on_wanted: Callable[[Process, str], None] | None = None
        """Receives a component that wants another one to be started, and the name of that."""
        self._by_name: dict[str, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(zygote.fileno(), self._note_ended)

    def __iter__(self) -> Iterator[Process]:
        """All started components that were not forgotten."""
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Process | None:
        """The process called `name`."""
        return self._by_name.get(name)

    def named(self, name: str) -> Process:
        """The process called `name`. Raises `MeshCommandError` if there is none."""
        if name not in self._by_name:
            raise MeshCommandError(f"there is no component {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    def start(self, what: Component, network: int | None, mounts: int | None) -> Process:
        """Write the component's files, and start it in its namespaces; replaces an ended one with the same name.

        Raises `MeshCommandError` or OSError.
        """
        for path, text in what.files.items():
            Path(path).write_text(text)
        process = self._by_name[what.name] = Process(what)
        read, write = os.pipe2(os.O_CLOEXEC)
        process.output = self._spawn(self._read(process, read), f"output of {what.name}")
        process.began = time.perf_counter()
        try:
            start = Start(what.name, what.command, what.environment, what.program, what.folder)
            process.pid = self._zygote.start(start, write, network, mounts)
        finally:
            os.close(write)
        return process

    async def until_ready(self, process: Process) -> None:
        """Wait until it reports that it is ready. Raises `MeshCommandError` if it ends instead."""
        if process.ready.is_set() and process.runs:
            return
        ready, ended = asyncio.ensure_future(process.ready.wait()), asyncio.ensure_future(process.ended.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if not process.ready.is_set():
            how = f"ended with {process.status} before it was ready"
            raise MeshCommandError(f"{process.name} {how}: {process.last or 'it logged nothing'}")
        seconds = time.perf_counter() - process.began
        self._tell({"event": "started", "component": process.name, "ms": round(seconds * 1000)})

    async def signal_until(self, process: Process, number: signal.Signals, event: str) -> None:
        """Send a signal, and wait until the component logs `event`, or ends."""
        heard = process.awaited.setdefault(event, asyncio.Event())
        heard.clear()
        self.signal(process, number)
        waiting = [asyncio.ensure_future(heard.wait()), asyncio.ensure_future(process.ended.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    def signal(self, process: Process, number: signal.Signals) -> None:
        """Send a signal to a component, unless it has ended."""
        if process.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    async def stop(self, name: str) -> None:
        """Stop a component: terminated first, then killed. Raises `MeshCommandError` if it does not exist."""
        process = self.named(name)
        if not process.pid or process.ended.is_set():
            return
        self.signal(process, signal.SIGTERM)
        self.signal(process, signal.SIGCONT)
        if not await self.until_ended(process, STOP_TIMEOUT):
            self._tell({"event": "killed", "component": name})
            self.signal(process, signal.SIGKILL)
            await process.ended.wait()

    async def until_ended(self, process: Process, timeout: float) -> bool:
        """Wait until it has ended; False if that takes too long."""
        try:
            async with asyncio.timeout(timeout):
                await process.ended.wait()
        except TimeoutError:
            return False
        return True

    def forget(self, name: str) -> None:
        """Forget an ended component, and remove its log."""
        del self._by_name[name]
        LogFile.remove(self._run.log_of(name))

    async def aclose(self) -> None:
        """Read the remaining output, after all components have ended."""
        asyncio.get_running_loop().remove_reader(self._zygote.fileno())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    async def _read(self, process: Process, descriptor: int) -> None:
        """Copy a component's output to its log, and handle its events."""
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        log = LogFile(self._run.log_of(process.name), self._log_level)
        with contextlib.closing(transport), contextlib.closing(log):
            while True:
                try:
                    line = await reader.readline()
                except ValueError:  # an overlong line is dropped
                    continue
                if not line:
                    return
                said = parsed(line)
                log.append(line, said)
                self._handle(process, line, said)

    def _handle(self, process: Process, line: bytes, said: dict[str, Any] | None) -> None:
        if said is None:
            process.last = line.decode(errors="replace").strip() or process.last
            return
        if said["event"] == "ready":
            process.said = said
            process.ready.set()
        if (heard := process.awaited.get(said["event"])) is not None:
            heard.set()
        if said.get("level") in {"warning", "error"}:
            process.last = f"{said['event']}: {said.get('error') or said.get('reason') or ''}".rstrip(": ")
        if said["event"] == WANTED and self.on_wanted is not None:
            self.on_wanted(process, str(said.get("endpoint")))
        if said["event"] in _TOLD:
            self._tell({**said, "component": process.name})

    def _note_ended(self) -> None:
        ended = dict(self._zygote.take_ended())
        if not self._zygote.is_alive:
            ended = {process.pid: ended.get(process.pid, signal.SIGKILL) for process in self if process.pid}
            asyncio.get_running_loop().remove_reader(self._zygote.fileno())
            self._tell({"event": "failed", "reason": "the process that starts components was killed"})
            self._stopping.set()
        for process in self:
            if process.pid in ended and process.status is None:
                process.status = os.waitstatus_to_exitcode(ended[process.pid])
                self._spawn(self._mark_ended(process), f"end of {process.name}")

    async def _mark_ended(self, process: Process) -> None:
        """Report that a component has ended, after its last output, which tells why."""
        if process.output is not None:
            await asyncio.wait({process.output}, timeout=_LAST_WORDS)
        process.ended.set()
        if not self._stopping.is_set() and process.status != 0:
            told = {"event": "ended", "component": process.name, "status": process.status}
            self._tell({**told, "reason": process.last})

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
