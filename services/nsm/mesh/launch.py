"""Starts a supervisor in the background and follows it until the mesh is up."""

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

from . import namespaces
from .control import NotThereError, follow
from .control_server import Commands, serve_control, up_or_stopped
from .model import Topology
from .processes import Tell
from .rundir import MeshCommandError, RunDir
from .supervisor import Supervisor
from .topology import read
from .zygote import Zygote, clear, components

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLEAR_TIMEOUT = 10.0
_SOON, _SLACK = 0.05, 10.0


class KeptError(MeshCommandError):
    """A mesh failed to start, and is kept as it is."""


def up(
    run: RunDir,
    topology: Topology | None,
    tell: Tell,
    *,
    timeout: float | None = None,
    keep: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Bring a mesh up; returns when every client has its wires, and leaves it running.

    A running mesh is changed to what `topology` describes; parts that already match are not touched. Without a
    topology, the running one or else the built-in one is used. `tell` is called with each event.

    Raises `MeshCommandError`, also if it takes more than `timeout` seconds. After that, or a KeyboardInterrupt, a new
    mesh is removed, except for its logs if it failed; a mesh that was running before stays as far as it was changed.
    With `keep`, a new mesh that failed stays too, as it is.
    """
    with _uninterrupted():
        while (lock := run.claim()) is None:
            with _interruptible():
                if _change(run, topology, tell, timeout):
                    return
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os._exit(_supervise(run, topology or read(None), timeout, dict(environment), write_end, lock, keep))
        os.close(write_end)
        os.close(lock)
        try:
            with _taken_down_unless_done(run, pid), os.fdopen(read_end) as events, _interruptible():
                _follow(events, tell, keep=keep)
        except KeptError as error:
            status, down = run.command("status"), run.command("down")
            raise MeshCommandError(f"{error}\nthe mesh is kept: `{status}` shows it, `{down}` removes it") from None
        except MeshCommandError as error:
            if run.kept_logs.exists():
                logs_of = f"`{run.command('logs')}` shows what the components logged (kept in {run.kept_logs})"
                raise MeshCommandError(f"{error}\n{logs_of}") from None
            raise


def _change(run: RunDir, topology: Topology | None, tell: Tell, timeout: float | None) -> bool:
    """Let the running supervisor make the change; False if it is not listening yet, or no longer."""
    request: dict[str, Any] = {"command": "up", "timeout": timeout}
    if topology is not None:
        request |= {"text": topology.text, "source": topology.source, "folder": topology.folder}
    try:
        for event in follow(run, request, timeout=timeout and timeout + _SLACK):
            if event["event"] == "up":
                return True
            if event["event"] == "failed":
                raise MeshCommandError(event["reason"])
            tell(event)
    except NotThereError:
        run.wait_released(_SOON)
        return False
    except TimeoutError:
        raise MeshCommandError(f"the supervisor of mesh {run.name!r} does not respond") from None
    raise MeshCommandError("the mesh was taken down by another command")


def _follow(events: Any, tell: Tell, *, keep: bool) -> None:
    for line in events:
        event = json.loads(line)
        if event["event"] == "up":
            return
        if event["event"] == "failed":
            raise (KeptError if keep and event.get("kept") else MeshCommandError)(event["reason"])
        tell(event)
    raise MeshCommandError("the mesh was taken down while it was starting")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer signals, so that none arrives between an action and the registration of its clean-up."""
    before = put_off_interruptions()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def put_off_interruptions() -> set[signal.Signals | int]:
    """From now on, only the wait in `up` can be interrupted; returns the previous signal mask."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Allow signals, including deferred ones."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)


@contextmanager
def _taken_down_unless_done(run: RunDir, pid: int) -> Iterator[None]:
    try:
        yield
    except KeptError:
        raise
    except BaseException:
        _end(pid, signal.SIGTERM)
        try:
            with _interruptible():
                os.waitpid(pid, 0)
        except KeyboardInterrupt:  # a second Ctrl-C means: do not wait
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
    keep: bool,
) -> int:
    """The supervisor's process, from fork to exit; SIGTERM is deferred until it is handled."""

    def tell(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(events, json.dumps(dict(event), default=str).encode() + b"\n")

    zygote, networks = None, set[int]()
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
        networks = asyncio.run(_run(run, zygote, topology, tell, timeout, environment, events, keep))
    except Exception as error:
        tell({"event": "failed", "reason": str(error) or repr(error)})
        logs.log.exception("the supervisor failed")
        run.keep_logs()
        return 1
    finally:
        if zygote is not None:
            zygote.close()
        clear(run, networks)
    return 0


def _detach(run: RunDir, *kept: int) -> None:
    """Detach from the terminal, folder and files of the command that started us and will exit."""
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


async def _run(
    run: RunDir,
    zygote: Zygote,
    topology: Topology,
    tell: Tell,
    timeout: float | None,
    environment: Mapping[str, str],
    events: int,
    keep: bool,
) -> set[int]:
    """Have a mesh until it is stopped; returns the numbers of its network namespaces at the end."""

    def tell_more(event: Mapping[str, Any]) -> None:
        tell({**event, "kept": keep} if event["event"] == "failed" else event)

    loop = asyncio.get_running_loop()
    supervisor = Supervisor(run, zygote, environment)
    loop.add_signal_handler(signal.SIGTERM, supervisor.stopping.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    loop.add_reader(events, supervisor.stopping.set)  # an error here means that the reader is gone
    control = await serve_control(str(run.control), Commands(supervisor))
    try:
        came_up = await up_or_stopped(supervisor, topology, timeout, tell_more)
        loop.remove_reader(events)
        if came_up:
            tell({"event": "up"})
        if came_up or (keep and not supervisor.stopping.is_set()):
            os.close(events)
            await supervisor.stopping.wait()
        has_failed = not came_up and not supervisor.stopping.is_set()
    finally:
        supervisor.stopping.set()
        await supervisor.down()
        control.close()
    if has_failed:
        run.keep_logs()
    return supervisor.networks
