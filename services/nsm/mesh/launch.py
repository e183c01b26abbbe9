"""Starts a supervisor in the background and listens to it until the mesh is up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nsm.chains import logs
from nsm.chains.core import MeshError

from . import namespaces
from .rundir import MeshCommandError, RunDir
from .supervisor import Supervisor, Tell, ask, serve_control
from .topology import Topology
from .zygote import Zygote


def up(run: RunDir, topology: Topology, tell: Tell, *, trace_to: str = "") -> None:
    """Bring a mesh up; returns when every client has its wires, and leaves it running.

    `tell` hears each step. Raises `MeshCommandError`; nothing is left then, nor after a KeyboardInterrupt.
    """
    if run.is_up():
        raise MeshCommandError(f"mesh {run.name!r} is up already; `nsm mesh down --name {run.name}` takes it down")
    run.create()
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os._exit(_supervise(run, topology, write, trace_to))
    os.close(write)
    with _taken_down_unless_done(run, pid), os.fdopen(read) as events:
        for line in events:
            event = json.loads(line)
            if event["event"] == "up":
                # from here on the mesh stays: a Ctrl-C that comes too late must not look like one in time
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                return
            if event["event"] == "failed":
                raise MeshCommandError(event["reason"])
            tell(event)
        raise MeshCommandError("the mesh's supervisor ended; see the messages above")


def down(run: RunDir) -> None:
    """Take a mesh down, and wait until nothing of it is left. Raises `MeshCommandError` if it is not up."""
    if not run.is_up():
        left = run.path.exists()
        run.remove()
        if left:
            return
        raise MeshCommandError(f"mesh {run.name!r} is not up")
    ask(str(run.control), {"command": "down"})
    run.remove()


@contextmanager
def _taken_down_unless_done(run: RunDir, pid: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(KeyboardInterrupt):
            os.waitpid(pid, 0)
        run.remove()
        raise


def _supervise(run: RunDir, topology: Topology, events: int, trace_to: str) -> int:
    """The supervisor's process, from its fork to its end."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def tell(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError, OSError):
            os.write(events, json.dumps(dict(event), default=str).encode() + b"\n")

    try:
        if os.geteuid() != 0:
            namespaces.become_root_in_user_namespace()
        namespaces.adopt_orphans()
        _detach(run)
        logs.set_up("supervisor", "INFO")
        zygote = Zygote()
    except OSError as error:
        tell({"event": "failed", "reason": str(error)})
        return 1
    try:
        return asyncio.run(_run(run, topology, zygote, tell, events, trace_to))
    finally:
        zygote.close()


def _detach(run: RunDir) -> None:
    """Let go of the terminal: it belongs to the command that started us, which returns."""
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(run.log_of("supervisor"), os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)


async def _run(run: RunDir, topology: Topology, zygote: Zygote, tell: Tell, events: int, trace_to: str) -> int:
    supervisor = Supervisor(run, topology, zygote, tell, trace_to=trace_to)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stopping.set)

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return await _answer(supervisor, gone, request)

    control = await serve_control(str(run.control), answer)
    try:
        if await _up_or_stopped(supervisor, tell):
            tell({"event": "up"})
            os.close(events)
            await supervisor.stopping.wait()
        return 0
    finally:
        supervisor.stopping.set()
        await supervisor.down()
        gone.set()
        await asyncio.sleep(0.05)  # lets the answer to `down` leave
        control.close()


async def _up_or_stopped(supervisor: Supervisor, tell: Tell) -> bool:
    starting = asyncio.ensure_future(supervisor.up())
    stopping = asyncio.ensure_future(supervisor.stopping.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return False
    except (MeshError, OSError) as error:
        tell({"event": "failed", "reason": str(error)})
        return False
    return True


async def _answer(supervisor: Supervisor, gone: asyncio.Event, request: dict[str, Any]) -> dict[str, Any]:
    command = request["command"]
    if command == "status":
        return {"components": supervisor.status(), "wires": await supervisor.wires()}
    if command == "pids":
        return {"pids": [component["pid"] for component in supervisor.status()]}
    if command == "place":
        return supervisor.place_of(request["workload"])
    if command == "stop":
        await supervisor.stop(request["component"])
        return {"stopped": request["component"]}
    if command == "down":
        supervisor.stopping.set()
        await gone.wait()
        return {"down": True}
    raise MeshError(f"unknown command {command!r}")


def enter_workload(run: RunDir, workload: str) -> None:
    """Turn this process into one of a workload: user, network and mount namespaces. Raises `MeshCommandError`."""
    if not run.is_up():
        raise MeshCommandError(f"mesh {run.name!r} is not up")
    place = ask(str(run.control), {"command": "place", "workload": workload})
    supervisor = place["supervisor"]
    try:
        network = os.open(f"/proc/{supervisor}/fd/{place['network']}", os.O_RDONLY)
        mounts = os.open(f"/proc/{supervisor}/fd/{place['mounts']}", os.O_RDONLY)
        if os.geteuid() != 0:
            namespaces.enter(os.open(f"/proc/{supervisor}/ns/user", os.O_RDONLY), namespaces.NEW_USER)
        folder = os.getcwd()
        namespaces.enter(mounts, namespaces.NEW_MOUNT)
        namespaces.enter(network, namespaces.NEW_NET)
        with contextlib.suppress(OSError):
            os.chdir(folder)
    except OSError as error:
        raise MeshCommandError(f"cannot enter {workload!r}: {error.strerror or error}; does it run?") from None


def run_in_workload(run: RunDir, workload: str, command: list[str]) -> int:
    """Run a command in a workload with our own terminal; returns its exit code."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            enter_workload(run, workload)
            os.execvp(command[0], command)  # noqa: S606 - the user's own command, no shell wanted
        except MeshError as error:
            print(f"nsm: {error}", file=sys.stderr)
        except OSError as error:
            print(f"nsm: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(127)
    while True:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:  # the command has got it too
            continue
