"""Starts a supervisor in the background and listens to it until the mesh is up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from nsm.chains import logs
from nsm.chains.core import MeshError

from . import namespaces
from .rundir import MeshCommandError, RunDir
from .supervisor import Supervisor, Tell, serve_control
from .topology import Topology
from .zygote import Zygote, clear, components

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLEAR_TIMEOUT = 10.0


def up(
    run: RunDir,
    topology: Topology,
    tell: Tell,
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Bring a mesh up; returns when every client has its wires, and leaves it running.

    `tell` hears each step. Raises `MeshCommandError`, also when that takes more than `timeout` seconds; nothing is left
    then, nor after a KeyboardInterrupt.
    """
    with _uninterrupted():
        lock = run.claim()
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os._exit(_supervise(run, topology, timeout, dict(environment), write, lock))
        os.close(write)
        os.close(lock)
        with _taken_down_unless_done(run, pid), os.fdopen(read) as events, _interruptible():
            _follow(events, tell)


def _follow(events: Any, tell: Tell) -> None:
    for line in events:
        event = json.loads(line)
        if event["event"] == "up":
            return
        if event["event"] == "failed":
            raise MeshCommandError(event["reason"])
        tell(event)
    raise MeshCommandError("somebody took the mesh down while it came up")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put signals off, so that none comes between a deed and what takes it back."""
    before = put_off_interruptions()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def put_off_interruptions() -> set[signal.Signals | int]:
    """From now on only the wait in `up` can be interrupted; returns the mask of signals that there was."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Where signals, also those that were put off, may come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)


@contextmanager
def _taken_down_unless_done(run: RunDir, pid: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _end(pid, signal.SIGTERM)
        try:
            with _interruptible():
                os.waitpid(pid, 0)
        except KeyboardInterrupt:  # whoever asks twice does not want to wait
            _end(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        run.wait_released(_CLEAR_TIMEOUT)
        raise


def _end(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _supervise(
    run: RunDir,
    topology: Topology,
    timeout: float | None,
    environment: Mapping[str, str],
    events: int,
    lock: int,
) -> int:
    """The supervisor's process, from its fork to its end; SIGTERM is put off until it is listened to."""

    def tell(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(events, json.dumps(dict(event), default=str).encode() + b"\n")

    supervisor = zygote = None
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _detach(run, events, lock)
        if not namespaces.may_make():
            namespaces.become_root_in_user_namespace()
        logs.set_up("supervisor", "INFO")
        traced = "OTEL_EXPORTER_OTLP_ENDPOINT" in environment
        zygote = Zygote(run, partial(components, traced=traced), lock=lock, events=events)
        namespaces.call_self("nsm-supervisor")
        supervisor = Supervisor(run, topology, zygote, tell, environment)
        asyncio.run(_run(run, supervisor, tell, timeout, events))
    except Exception as error:
        tell({"event": "failed", "reason": str(error) or repr(error)})
        logs.log.exception("the supervisor failed")
        return 1
    finally:
        if zygote is not None:
            zygote.close()
        clear(run, supervisor.networks if supervisor is not None else ())
    return 0


def _detach(run: RunDir, *kept: int) -> None:
    """Let go of the terminal, the folder and the files of the command that started us: it returns, we stay."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(run.log_of("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    edges = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for lower, upper in itertools.pairwise(edges):
        os.closerange(lower + 1, upper)


async def _run(run: RunDir, supervisor: Supervisor, tell: Tell, timeout: float | None, events: int) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, supervisor.stopping.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    loop.add_reader(events, supervisor.stopping.set)  # an error on this end: nobody listens at the other one
    control = await serve_control(str(run.control), lambda request: _answer(supervisor, request))
    try:
        came_up = await _up_or_stopped(supervisor, timeout, tell)
        loop.remove_reader(events)
        if came_up:
            tell({"event": "up"})
            os.close(events)
            await supervisor.stopping.wait()
    finally:
        supervisor.stopping.set()
        await supervisor.down()
        control.close()


async def _up_or_stopped(supervisor: Supervisor, timeout: float | None, tell: Tell) -> bool:
    starting = asyncio.ensure_future(supervisor.up(timeout))
    stopping = asyncio.ensure_future(supervisor.stopping.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return False
    except (MeshError, MeshCommandError, OSError) as error:
        tell({"event": "failed", "reason": str(error)})
        return False
    return True


async def _answer(supervisor: Supervisor, request: dict[str, Any]) -> dict[str, Any]:
    command = request["command"]
    if command == "status":
        return {"components": supervisor.status(), "wires": await supervisor.wires()}
    if command == "place":
        return supervisor.place_of(request["workload"])
    if command == "stop":
        await supervisor.stop(request["component"])
        return {"stopped": request["component"]}
    if command == "down":
        supervisor.stopping.set()
        return {"stopping": True}
    raise MeshCommandError(f"unknown command {command!r}")
