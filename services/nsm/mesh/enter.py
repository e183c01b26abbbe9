"""Takes a mesh down, and enters its workloads; needs only its folder and its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from . import namespaces
from .control import NoAnswerError, ask, supervisor_of
from .rundir import MeshCommandError, RunDir
from .zygote import end_inhabitants

DOWN_TIMEOUT = 60.0
_SOON = 5.0


def down(run: RunDir) -> None:
    """Take a mesh down, and wait until everything is removed; also removes leftovers of a killed mesh.

    The logs of a mesh that failed to start are removed too. Raises `MeshCommandError` if there is nothing.
    """
    if not run.is_held():
        if not run.path.exists() and not run.kept_logs.exists():
            raise MeshCommandError(run.absence())
        end_inhabitants((), run.marks())
        run.forget_logs()
        run.remove()
        return
    if not _asked(run) or not run.wait_released(DOWN_TIMEOUT):
        _kill(run)


def _asked(run: RunDir) -> bool:
    """Tell the supervisor to stop; False if it is not listening yet, or no longer."""
    for _ in range(100):
        try:
            ask(run, {"command": "down"}, timeout=_SOON)
        except NoAnswerError:
            return False
        except MeshCommandError:
            if run.wait_released(0.05):
                return True
        else:
            return True
    return False


def _kill(run: RunDir) -> None:
    """Kill an unresponsive supervisor; the process that guards the mesh then cleans up."""
    pid = supervisor_of(run)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not run.wait_released(_SOON):
        raise MeshCommandError(f"mesh {run.name!r} cannot be taken down: its supervisor (pid {pid}) does not end")


def become_command(run: RunDir, workload: str, command: list[str]) -> None:
    """Replace this process by `command` in the namespaces of a workload or a node; returns only by raising.

    Raises `MeshCommandError` if there is no such workload or node, or the command cannot be run.
    """
    place = ask(run, {"command": "place", "workload": workload})
    for key, value in place["environment"].items():
        os.environ.setdefault(key, value)
    name, value = place["mark"]
    os.environ[name] = value
    _enter(workload, place["supervisor"], place["network"], place["mounts"])
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's own command, no shell wanted
    except OSError as error:
        raise MeshCommandError(f"cannot run {command[0]!r}: {error.strerror}") from None


def _enter(workload: str, supervisor: int, network: int, mounts: int | None) -> None:
    """Enter a network namespace and, if there are any, mounts."""
    folder = os.getcwd()
    wanted = [(namespaces.NEW_NET, network)] + ([(namespaces.NEW_MOUNT, mounts)] if mounts is not None else [])
    try:
        opened = {
            kind: os.open(f"/proc/{supervisor}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            for kind, descriptor in wanted
        }
        user = os.open(f"/proc/{supervisor}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if not namespaces.is_own_user(user):
            namespaces.enter(user, namespaces.NEW_USER)
        for kind, descriptor in opened.items():
            namespaces.enter(descriptor, kind)
    except OSError as error:
        raise MeshCommandError(f"cannot enter {workload!r}: {error.strerror or error}") from None
    with contextlib.suppress(OSError):
        os.chdir(folder)
