"""A process that imports everything once and forks the components, which start fast and share memory.

It also cleans up: when the supervisor ends for any reason, it ends all processes in the mesh's namespaces and removes
the mesh's folder.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from nsm.chains.importing import without_garbage_collection

from . import namespaces
from .rundir import MeshCommandError, RunDir

Main = Callable[[list[str]], int]
_LARGEST = 256 * 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)
_GRACE = 1.0
"""Seconds that a command in a workload has to exit when its mesh is taken down."""


@dataclass(frozen=True)
class Start:
    """A component to start in `folder`: its name, its `nsm` command or the user's `program`, its environment."""

    name: str
    command: str
    environment: Mapping[str, str]
    program: Sequence[str] = ()
    folder: str = "/"


class Zygote:
    """The supervisor's handle of the forking process.

    `load` imports all components, and returns the `main` of each command; it runs only in the forking process.
    `lock`, the descriptor whose lock marks the mesh as alive, stays open in the forking process; `events` does not.
    """

    def __init__(self, run: RunDir, load: Callable[[], Mapping[str, Main]], *, lock: int, events: int) -> None:
        self._ended: list[tuple[int, int]] = []
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            os.close(events)
            _exit_after(lambda: _serve(theirs, run, load, lock))
        theirs.close()
        self.is_alive = True

    def fileno(self) -> int:
        """A descriptor that becomes readable when a component, or the forking process itself, has ended."""
        return self._ours.fileno()

    def start(self, what: Start, output: int, network: int | None, mounts: int | None) -> int:
        """Start a component in its namespaces with its output going to `output`; returns its pid.

        Without a `network` it stays in the namespaces of this process.

        Raises `MeshCommandError` if the forking process is gone.
        """
        data = json.dumps(asdict(what)).encode()
        descriptors = array.array("i", [each for each in (output, network, mounts) if each is not None])
        try:
            self._ours.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())])
            while message := self._ours.recv(_LARGEST):
                told = json.loads(message)
                if "started" in told:
                    return int(told["started"])
                self._ended.append((told["ended"], told["status"]))
        except ConnectionError:
            pass
        self.is_alive = False
        raise MeshCommandError(f"{what.name} cannot be started: the process that starts components was killed")

    def forget(self, networks: Collection[int]) -> None:
        """Forget these namespaces: their numbers may be reused by namespaces that do not belong to the mesh."""
        with contextlib.suppress(ConnectionError):
            self._ours.send(json.dumps({"forget": list(networks)}).encode())

    def take_ended(self) -> list[tuple[int, int]]:
        """Pid and exit status of the components that ended since the last call; does not wait.

        `is_alive` is False afterwards if the forking process is gone, and its components with it.
        """
        try:
            while data := self._ours.recv(_LARGEST, socket.MSG_DONTWAIT):
                message = json.loads(data)
                self._ended.append((message["ended"], message["status"]))
            self.is_alive = False
        except BlockingIOError:
            pass
        except ConnectionError:
            self.is_alive = False
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        """End the forking process; it ends what still runs."""
        self._ours.close()
        os.waitpid(self.pid, 0)


def components(*, traced: bool) -> dict[str, Main]:
    """Import all components, and tracing if they are `traced`; returns the `main` of each by its command."""
    from nsm.chains.component import prepare_codec  # noqa: PLC0415 - only the zygote wants all of them
    from nsm.forwarder_kernel.main import main as forwarder  # noqa: PLC0415
    from nsm.forwarder_vpp.main import main as forwarder_vpp  # noqa: PLC0415
    from nsm.services.dns_server.main import main as dns_server  # noqa: PLC0415
    from nsm.services.identity.main import main as identity  # noqa: PLC0415
    from nsm.services.nsc.main import main as nsc  # noqa: PLC0415
    from nsm.services.nse.main import main as nse  # noqa: PLC0415
    from nsm.services.nse_remote_vlan.main import main as nse_remote_vlan  # noqa: PLC0415
    from nsm.services.nsmgr.main import main as nsmgr  # noqa: PLC0415
    from nsm.services.nsmgr_proxy.main import main as nsmgr_proxy  # noqa: PLC0415
    from nsm.services.registry.main import main as registry  # noqa: PLC0415
    from nsm.services.registry_proxy.main import main as registry_proxy  # noqa: PLC0415

    prepare_codec()
    if traced:
        import opentelemetry.sdk.trace.export  # noqa: PLC0415
        import opentelemetry.trace.propagation.tracecontext  # noqa: F401, PLC0415
    return {
        "agent": _later("nsm.services.agent.main"),
        "dns-server": dns_server,
        "forwarder-kernel": forwarder,
        "forwarder-vpp": forwarder_vpp,
        "identity": identity,
        "ipam": _later("nsm.services.ipam.main"),
        "lb-vl3": _later("nsm.services.lb_vl3.main"),
        "nsc": nsc,
        "nse": nse,
        "nse-firewall": _later("nsm.services.nse_firewall.main"),
        "nse-passthrough": _later("nsm.services.nse_passthrough.main"),
        "nse-remote-vlan": nse_remote_vlan,
        "nse-supplier": _later("nsm.services.nse_supplier.main"),
        "nse-vl3": _later("nsm.services.nse_vl3.main"),
        "nsmgr": nsmgr,
        "nsmgr-proxy": nsmgr_proxy,
        "registry": registry,
        "registry-proxy": registry_proxy,
        "view": _later("nsm.view.main"),
    }


def _later(module: str) -> Main:
    """A component that few meshes have: its process imports it when it starts."""

    def main(arguments: list[str]) -> int:
        found: Main = importlib.import_module(module).main
        return found(arguments)

    return main


def clear(run: RunDir, networks: Collection[int]) -> None:
    """End all processes in, or from, the network namespaces with these numbers; remove the mesh's folder."""
    end_inhabitants(networks, run.marks())
    run.remove()


def end_inhabitants(networks: Collection[int], marks: Collection[namespaces.Mark]) -> None:
    """End all processes in the network namespaces with these numbers, or with one of `marks`; waits for their end."""
    for number in (signal.SIGHUP, signal.SIGTERM):  # shells exit on SIGHUP, most others on SIGTERM
        if not (found := namespaces.inhabitants(networks, marks)):
            return  # each look reads what /proc has of all processes of the machine
        _signal(found, number)
    end = time.monotonic() + _GRACE
    while (left := namespaces.inhabitants(networks, marks)) and time.monotonic() < end:
        time.sleep(0.01)
    _signal(left, signal.SIGKILL)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _exit_after(work: Callable[[], int]) -> None:
    """Run `work` in a forked child and exit without the parent's clean-up handlers."""
    code = 1
    try:
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(sock: socket.socket, run: RunDir, load: Callable[[], Mapping[str, Main]], lock: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    namespaces.call_self("nsm-zygote")
    forks = _Forks(sock, lock)
    try:
        with without_garbage_collection():
            mains = load()
        forks.serve(mains)
    finally:
        forks.kill()
        clear(run, forks.networks)
    return 0


class _Forks:
    """The forked components, whose ends are reported on a socket to the supervisor."""

    def __init__(self, sock: socket.socket, lock: int) -> None:
        self._sock, self._lock = sock, lock
        self._children: set[int] = set()
        self.networks: set[int] = set()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self, mains: Mapping[str, Main]) -> None:
        """Start components on request and report their ends, until the supervisor is gone."""
        gc.collect()
        gc.freeze()
        signal.set_wakeup_fd(self._write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with contextlib.suppress(ConnectionError):
            while True:
                self._wait()
                self._report_ended()
                request = self._receive()
                if request is None:
                    return
                if request:
                    self._start(mains, *request)

    def kill(self) -> None:
        """End all components."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _wait(self) -> None:
        select.select([self._sock.fileno(), self._read], [], [])
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def _report_ended(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.discard(pid)
                self._tell({"ended": pid, "status": status})

    def _receive(self) -> tuple[Start, list[int]] | tuple[()] | None:
        """The next request with its descriptors; None if the supervisor is gone, () if there is no request."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_LARGEST, socket.CMSG_SPACE(12), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return ()
        if not data:
            return None
        request = json.loads(data)
        if "forget" in request:
            self.networks.difference_update(request["forget"])
            return ()
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        return Start(**request), list(descriptors)

    def _start(self, mains: Mapping[str, Main], what: Start, descriptors: list[int]) -> None:
        if len(descriptors) > 1:  # never that of the supervisor itself: all that is in them is ended with the mesh
            self.networks.add(namespaces.number_of(descriptors[1]))
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal that arrives meanwhile goes to the component
        zygote, pid = os.getpid(), os.fork()
        if pid == 0:
            self._let_go()
            _exit_after(lambda: _become(mains.get(what.command), what, descriptors, zygote))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for descriptor in descriptors:
            os.close(descriptor)
        self._children.add(pid)
        self._tell({"started": pid})

    def _let_go(self) -> None:
        signal.set_wakeup_fd(-1)
        self._sock.close()
        for descriptor in (self._read, self._write, self._lock):
            os.close(descriptor)

    def _tell(self, message: Mapping[str, int]) -> None:
        self._sock.send(json.dumps(message).encode())


def _become(main: Main | None, what: Start, descriptors: list[int], zygote: int) -> int:
    """Turn this fork into the component."""
    output, *places = descriptors
    namespaces.die_with_parent(signal.SIGKILL, zygote)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for place, kind in zip(places, (namespaces.NEW_NET, namespaces.NEW_MOUNT), strict=False):
        namespaces.enter(place, kind)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in descriptors:
        os.close(descriptor)
    if main is None:
        return _run(what)
    os.chdir(what.folder)
    namespaces.call_self(what.name)
    os.environ.clear()
    os.environ.update(what.environment)
    tempfile.tempdir = None  # discard the zygote's cached value
    return main([])


def _run(what: Start) -> int:
    """Replace this process by a user's program; returns only on error."""
    try:
        os.chdir(what.folder)
        os.execvpe(what.program[0], list(what.program), dict(what.environment))  # noqa: S606 - no shell wanted
    except OSError as error:
        print(f"cannot run {what.program[0]!r} in {what.folder}: {error.strerror}", file=sys.stderr)
    return 127
