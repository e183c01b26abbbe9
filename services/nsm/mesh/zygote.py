"""A process that has imported everything once and forks the components: fast to start, and their memory is shared."""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from . import namespaces

_LARGEST = 256 * 1024


@dataclass(frozen=True)
class Start:
    """A component to start: the `nsm` command, its environment, and an own resolv.conf if it is a workload."""

    command: str
    environment: Mapping[str, str]
    resolv_conf: str = ""


class Zygote:
    """The supervisor's handle of the forking process."""

    def __init__(self) -> None:
        self._ended: list[tuple[int, int]] = []
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            _exit_after(lambda: _serve(theirs))
        theirs.close()

    def fileno(self) -> int:
        """Becomes readable when a component has ended."""
        return self._ours.fileno()

    def start(self, what: Start, network: int, output: int) -> int:
        """Start a component in a network namespace with its output going to `output`; returns its pid."""
        data = json.dumps(asdict(what)).encode()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [network, output]).tobytes())
        self._ours.sendmsg([data], [rights])
        while True:
            message = json.loads(self._ours.recv(_LARGEST))
            if "started" in message:
                return int(message["started"])
            self._ended.append((message["ended"], message["status"]))

    def take_ended(self) -> list[tuple[int, int]]:
        """Pid and exit status of the components that ended since the last look; does not wait."""
        self._ours.setblocking(False)
        try:
            while data := self._ours.recv(_LARGEST):
                message = json.loads(data)
                self._ended.append((message["ended"], message["status"]))
        except BlockingIOError:
            pass
        finally:
            self._ours.setblocking(True)
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        """End the forking process; what it started is expected to have ended."""
        self._ours.close()
        os.waitpid(self.pid, 0)


def _exit_after(work: Callable[[], int]) -> None:
    """Run `work` in a forked child and leave without running the parent's clean-ups."""
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


def _serve(sock: socket.socket) -> int:
    namespaces.die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    commands = _import_components()
    gc.collect()
    gc.freeze()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    while True:
        _wait(sock, read)
        _report_ended(sock, children)
        request = _receive(sock)
        if request is None:
            return 0
        if request:
            children.add(_fork(commands, sock, *request))


def _import_components() -> dict[str, Callable[[list[str]], int]]:
    from nsm.chains.component import prepare_codec  # noqa: PLC0415
    from nsm.forwarder_kernel.main import main as forwarder  # noqa: PLC0415 - only the zygote wants all of them
    from nsm.services.identity.main import main as identity  # noqa: PLC0415
    from nsm.services.nsc.main import main as nsc  # noqa: PLC0415
    from nsm.services.nse.main import main as nse  # noqa: PLC0415
    from nsm.services.nsmgr.main import main as nsmgr  # noqa: PLC0415
    from nsm.services.registry.main import main as registry  # noqa: PLC0415

    prepare_codec()
    return {
        "forwarder-kernel": forwarder,
        "identity": identity,
        "nsc": nsc,
        "nse": nse,
        "nsmgr": nsmgr,
        "registry": registry,
    }


def _wait(sock: socket.socket, wakeup: int) -> None:
    select.select([sock.fileno(), wakeup], [], [])
    with contextlib.suppress(BlockingIOError):
        os.read(wakeup, 4096)


def _receive(sock: socket.socket) -> tuple[Start, int, int] | tuple[()] | None:
    """The next request with its two descriptors; None when the supervisor is gone, () if there is none."""
    try:
        data, ancillary, _, _ = sock.recvmsg(_LARGEST, socket.CMSG_SPACE(8), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return ()
    if not data:
        return None
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    return Start(**json.loads(data)), descriptors[0], descriptors[1]


def _report_ended(sock: socket.socket, children: set[int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            sock.send(json.dumps({"ended": pid, "status": status}).encode())


def _fork(
    commands: Mapping[str, Callable[[list[str]], int]], sock: socket.socket, what: Start, network: int, output: int
) -> int:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        sock.close()
        _exit_after(lambda: _become(commands[what.command], what, network, output))
    os.close(network)
    os.close(output)
    sock.send(json.dumps({"started": pid}).encode())
    return pid


def _become(main: Callable[[list[str]], int], what: Start, network: int, output: int) -> int:
    """Turn this fork into the component."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    namespaces.enter(network, namespaces.NEW_NET)
    if what.resolv_conf:
        namespaces.private_mounts()
        namespaces.bind(what.resolv_conf, os.path.realpath("/etc/resolv.conf"))
    namespaces.die_with_parent(signal.SIGKILL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(what.environment)
    return main([])
