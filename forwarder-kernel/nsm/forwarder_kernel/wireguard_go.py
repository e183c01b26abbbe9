"""WireGuard in userspace, for kernels without it: one `wireguard-go` process for each wire, a few kept ready.

A process makes its interface beside its UDP socket, in the node's namespace; the interface is moved to the workload
then. Its control socket is in a mount namespace of its own, reached through /proc, so that nothing on the machine has
to be writable and no two names collide. A process ends with its wire, and with the forwarder: unlike a kernel's
device it holds keys that a forwarder which starts again does not know, so it could be of no use to that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nsm.chains.core import Key, MeshError, Tasks, Unsupported, shielded
from nsm.chains.logs import log

from .netlink import KEEPALIVE, LinkEnd, Namespace, link_is_up, move_link, set_mtu
from .tunnels import Wireguard

PROGRAM = "wireguard-go"
_TUN = "/dev/net/tun"
_START = "mount -t tmpfs -o mode=0700,size=64k none /run && exec wireguard-go "
_READY_TIMEOUT, _PAUSE, _ANSWER_TIMEOUT = 5.0, 0.001, 2.0
_F_ADD_SEALS, _F_SEAL_GROW, _WORDS = 1033, 0x4, 4096
_ANSWER_SIZE = 65536
_FILL_AFTER = 0.1

T = TypeVar("T")


class InNode(Protocol):
    """Runs work in the node's namespace, in a thread that lives as long as the dataplane."""

    async def __call__(self, work: Callable[[Namespace], T]) -> T:
        """What `work` returns; it gets the node's namespace."""
        ...


@dataclass(slots=True, eq=False)
class Process:
    """A running wireguard-go; `index` is that of its interface in the node's namespace, when it was made."""

    running: subprocess.Popen[bytes] = field(repr=False)
    name: str
    words: int
    """What it writes to stderr: a file in memory."""
    index: int = 0
    mtu: int = 0
    moved_to: str = ""
    """The file of the namespace to which its interface was moved ahead, under its own name."""
    index_there: int = 0

    @property
    def control(self) -> str:
        """The path of its control socket."""
        return f"/proc/{self.running.pid}/root/run/wireguard/{self.name}.sock"

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.running.poll() is None

    def is_ready(self) -> bool:
        """Whether it answers. Raises `Unsupported` with its own words if it has ended."""
        if not self.is_running():
            raise Unsupported(f"{PROGRAM} ended: {self._last_words()}")
        with contextlib.suppress(OSError):
            self._connected().close()
            return True
        return False

    def set(self, wire: Wireguard) -> None:
        """Give it its key and its only peer, who may send and get everything. Raises `Unsupported` if it refuses."""
        host = f"[{wire.peer}]" if wire.peer.version == 6 else str(wire.peer)
        lines = [
            "set=1",
            f"private_key={wire.private_key.hex()}",
            f"listen_port={wire.port}",
            "replace_peers=true",
            f"public_key={wire.peer_key.hex()}",
            f"endpoint={host}:{wire.peer_port}",
            f"persistent_keepalive_interval={KEEPALIVE}",
            "replace_allowed_ips=true",
            "allowed_ip=0.0.0.0/0",
            "allowed_ip=::/0",
        ]
        number = int(self._ask(lines).get("errno", "0"))
        if number:
            raise Unsupported(f"{PROGRAM} refused its configuration: {os.strerror(abs(number))}")

    def last_handshake(self) -> int:
        """When its peer was heard (Unix time, seconds); 0: not yet."""
        return int(self._ask(["get=1"]).get("last_handshake_time_sec", "0"))

    def prepare(self, own: Namespace, mtu: int) -> None:
        """Note its interface, and give that an MTU while the process sees it: it fills packets up to that size."""
        if not self.index:
            link = own.socket.link(name=self.name)
            if link is None:
                raise Unsupported(f"{PROGRAM} made no interface {self.name}")
            self.index, self.mtu = link.index, link.mtu
        if mtu and mtu != self.mtu:
            own.socket.apply([set_mtu(self.index, mtu)])
            self.mtu = mtu

    def move(self, own: Namespace, end: LinkEnd) -> None:
        """Move its interface from the node's namespace to where it belongs, under its name there."""
        own.socket.apply([move_link(self.index, end)])

    def wake(self, own: Namespace) -> None:
        """Tell it that its interface is up: it hears of links of its own namespace only."""
        with contextlib.suppress(OSError):  # it looks by itself every second
            own.socket.tell(self.running.pid, link_is_up(self.index))

    def signal_end(self) -> None:
        """Ask the kernel to end it, and with it its interface and its port."""
        if self.is_running():
            self.running.send_signal(signal.SIGKILL)

    def wait_end(self) -> None:
        """Wait until it has ended."""
        self.running.wait()
        if self.words >= 0:
            os.close(self.words)
            self.words = -1

    def _ask(self, lines: list[str]) -> dict[str, str]:
        try:
            answer = self._answer("\n".join(lines) + "\n\n")
        except OSError as error:
            raise Unsupported(f"{PROGRAM} does not answer: {error.strerror or error}") from None
        return dict(line.split("=", 1) for line in answer.split("\n") if "=" in line)

    def _answer(self, question: str) -> str:
        with self._connected() as sock:
            sock.sendall(question.encode())
            answer = b""
            while not answer.endswith(b"\n\n") and (part := sock.recv(_ANSWER_SIZE)):
                answer += part
        return answer.decode()

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_ANSWER_TIMEOUT)
            sock.connect(self.control)
        except BaseException:
            sock.close()
            raise
        return sock

    def _last_words(self) -> str:
        lines = os.pread(self.words, _WORDS, 0).rstrip(b"\0").decode(errors="replace").strip().split("\n")
        return lines[-1] or f"exit code {self.running.returncode}"


def start() -> Process:
    """Start a process in the network namespace of the calling thread; it ends with that thread at the latest.

    Raises `Unsupported` if this machine or this user cannot.
    """
    check()
    name, words = f"nsm{secrets.token_hex(5)}", _words()
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LOG_LEVEL": "error",
        "WG_PROCESS_FOREGROUND": "1",
    }
    try:
        running = subprocess.Popen(
            [*command, "sh", "-c", _START + name],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,
        )
    except OSError as error:
        os.close(words)
        raise Unsupported(f"cannot start {PROGRAM}: {error.strerror}") from None
    return Process(running, name, words)


def check() -> None:
    """Raise `Unsupported` if this machine or this user cannot run it."""
    if shutil.which(PROGRAM) is None:
        raise Unsupported(f"this kernel has no WireGuard, and {PROGRAM} is not installed (Debian package {PROGRAM})")
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Unsupported(f"{PROGRAM} needs {_TUN}, which cannot be opened here: {error.strerror}") from None


def _words() -> int:
    """A file for what a process has to say: its first words, since it may live for months."""
    descriptor = os.memfd_create("wireguard-go", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _WORDS)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_GROW)
    return descriptor


class Spares:
    """Processes that are ready, so that a wire does not wait for one to start; more are made when one is taken.

    `in_node` runs its argument in the thread that starts processes, in the node's namespace.
    """

    def __init__(self, in_node: InNode, count: int) -> None:
        self._in_node, self._count = in_node, count
        self._ready: list[Process] = []
        self._all: set[Process] = set()
        self._tasks = Tasks("wireguard-go")
        self._is_filling = False
        self.mtu = 0
        """That of the underlay less a tunnel's overhead; the interface has to have it before it is moved."""

    def __len__(self) -> int:
        """How many processes there are, spare ones and those of wires."""
        return len(self._all)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what prepares for the first wire; what keeps it from doing so is told."""
        self._tasks.spawn(_told(work), name="preparation")

    def fill(self) -> None:
        """Have as many as there should be, in a moment: who took one uses the processor now."""
        if not self._is_filling and self._count > len(self._ready):
            self._is_filling = True
            self._tasks.spawn(_told(self._fill()), name="spare processes")

    async def take(self) -> Process:
        """One that is ready. Raises `Unsupported` if there can be none."""
        try:
            while self._ready:
                if (process := self._ready.pop()).is_running():
                    return process
                await self.end([process])
            return await self._started()
        finally:
            self.fill()

    async def end(self, processes: Sequence[Process]) -> None:
        """End processes, and wait until they and their interfaces are gone."""
        for process in processes:
            process.signal_end()
        for process in processes:
            await asyncio.get_running_loop().run_in_executor(None, process.wait_end)
            self._all.discard(process)

    async def aclose(self) -> None:
        """End all, also those of wires."""
        await self._tasks.aclose()
        await self.end(list(self._all))
        self._ready.clear()

    async def _started(self) -> Process:
        """A new one; whoever is cancelled meanwhile leaves none behind: the thread that starts it goes on."""
        starting = asyncio.ensure_future(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await shielded(self._discard(starting), name="end of wireguard-go that nobody waited for")
            raise

    async def _discard(self, starting: asyncio.Future[Process]) -> None:
        with contextlib.suppress(MeshError):
            await self.end([await starting])

    async def _fill(self) -> None:
        try:
            await asyncio.sleep(_FILL_AFTER)
            while len(self._ready) < self._count:
                self._ready.append(await self._started())
        finally:
            self._is_filling = False

    async def _start(self) -> Process:
        process = await self._in_node(self._spawn)
        try:
            end = time.monotonic() + _READY_TIMEOUT
            while not process.is_ready():
                if time.monotonic() > end:
                    raise Unsupported(f"{PROGRAM} does not answer after {_READY_TIMEOUT:.0f} s")
                await asyncio.sleep(_PAUSE)
            await self._in_node(lambda own: process.prepare(own, self.mtu))
        except BaseException:
            await shielded(self.end([process]), name="end of wireguard-go")
            raise
        return process

    def _spawn(self, own: Namespace) -> Process:
        process = start()
        self._all.add(process)
        return process


class Ahead:
    """A process that is made ready while others are asked; ended by `drop` unless a wire has claimed it."""

    def __init__(self, making: Coroutine[Any, Any, Process | None], spares: Spares) -> None:
        self._making, self._spares = asyncio.ensure_future(making), spares
        self._is_claimed = False

    async def claim(self) -> Process | None:
        """The process, which is the caller's now; None if there is none, whatever the reason."""
        try:
            process = await asyncio.shield(self._making)
        except MeshError:
            process = None
        self._is_claimed = True
        return process

    async def drop(self) -> None:
        """End the process, if nobody has it."""
        if not self._is_claimed:
            self._is_claimed = True
            self._making.cancel()
            await asyncio.wait([self._making])
            if not self._making.cancelled() and not self._making.exception() and (process := self._making.result()):
                await self._spares.end([process])


AHEAD: Key[Ahead] = Key("WireGuard made ahead")
"""What was begun of a connection's wire while others are asked."""


async def _told(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except MeshError as error:
        log.warning("no spare processes for WireGuard", because=str(error))
