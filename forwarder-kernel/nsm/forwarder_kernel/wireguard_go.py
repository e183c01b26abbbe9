"""WireGuard in userspace, for kernels without it: one `wireguard-go` process for each wire.

The process has its UDP socket in the node's namespace; its interface is made in the workload's, by us, and handed over
open: an interface that is made in one namespace and moved to another takes the kernel 20 ms. The program asks for its
interface by name in its own namespace all the same, so there is a decoy of that name there, which also tells all
processes the MTU of the underlay. Their control sockets are in mount namespaces of their own, reached through /proc,
so that nothing on the machine has to be writable and no two names collide.

A process ends with its wire, and with the forwarder: unlike a kernel's device it holds keys that a forwarder which
starts again does not know, so it could be of no use to that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nsm.chains import libc
from nsm.chains.core import Conflict, Key, MeshError, Unsupported, shielded

from .netlink import KEEPALIVE, Namespace, Namespaces, rename, set_mtu, set_up
from .netlink.namespaces import entered
from .tunnels import Wireguard

PROGRAM = "wireguard-go"
_TUN, _RUN = "/dev/net/tun", os.path.realpath("/var/run")
_TUNSETIFF, _INTERFACE_REQUEST = 0x400454CA, struct.Struct("16sH22x")
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_FIRST_WITHOUT_HEADER = 20230300
"""From this version on, by its date, the program reads packets without the header that tun puts before them."""
_READY_TIMEOUT, _PAUSE, _ANSWER_TIMEOUT = 5.0, 0.0005, 2.0
_F_ADD_SEALS, _F_SEAL_GROW, _WORDS = 1033, 0x4, 4096
_ANSWER_SIZE = 65536

T = TypeVar("T")


class InNode(Protocol):
    """Runs work in the thread that talks to the kernel."""

    async def __call__(self, work: Callable[[Namespaces], T]) -> T:
        """What `work` returns."""
        ...


@dataclass(slots=True, eq=False)
class Process:
    """A running wireguard-go and its interface, which is down and has a name of its own."""

    running: subprocess.Popen[bytes] = field(repr=False)
    control: str
    """The path of its control socket."""
    path: str
    """The file of the namespace that its interface is in."""
    index: int
    words: int
    """What it writes to stderr: a file in memory."""

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
        """Give it its key and its only peer, who may send and get everything. Raises `Conflict` or `Unsupported`."""
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
        if abs(number) == errno.EADDRINUSE:
            raise Conflict(f"UDP port {wire.port} of this node is taken by somebody else")
        if number:
            raise Unsupported(f"{PROGRAM} refused its configuration: {os.strerror(abs(number))}")

    def last_handshake(self) -> int:
        """When its peer was heard (Unix time, seconds); 0: not yet."""
        return int(self._ask(["get=1"]).get("last_handshake_time_sec", "0"))

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


def check() -> None:
    """Raise `Unsupported` if this machine or this user cannot run it."""
    if shutil.which(PROGRAM) is None:
        raise Unsupported(
            f"this kernel has no WireGuard, and {PROGRAM} is not installed: load the kernel's module wireguard on this "
            f"node, or install {PROGRAM} beside the forwarder (in its image, if it runs in a container)"
        )
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


@dataclass(frozen=True, slots=True)
class _Tun:
    """An interface, open."""

    name: str
    index: int
    file: int

    @classmethod
    def make(cls, namespace: Namespace, name: str, flags: int) -> _Tun:
        with entered(namespace.descriptor):
            file = _open_tun(name, flags)
        link = namespace.socket.link(name=name)
        assert link is not None
        return cls(name, link.index, file)


@dataclass(frozen=True, slots=True)
class _Decoy:
    """The interface that processes find in the node's namespace under the name of their own."""

    tun: _Tun
    namespace: int
    flags: int
    """How the program wants packets to be framed."""

    @classmethod
    def make(cls, spaces: Namespaces) -> _Decoy:
        flags = _flags()
        tun = _Tun.make(spaces.own, _new_name(), flags)
        about = "nsm: the name and the MTU that WireGuard programs see; no packet goes here"
        spaces.own.socket.apply([set_up(tun.index, about)])
        return cls(tun, spaces.own.descriptor, flags)


class Programs:
    """The processes of one forwarder. `in_node` is the thread that talks to the kernel."""

    def __init__(self, in_node: InNode) -> None:
        self._in_node = in_node
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="wireguard-go")
        self._all: set[Process] = set()
        self._decoy: _Decoy | None = None
        self._turn = asyncio.Lock()
        self._has_hidden = False

    def __len__(self) -> int:
        """How many processes there are."""
        return len(self._all)

    async def start(self, path: str, room: int) -> Process:
        """A process whose interface is in the namespace at `path`; `room` is the MTU that the underlay leaves.

        Raises `Unsupported` if this machine or this user cannot. Whoever is cancelled meanwhile leaves none behind.
        """
        starting = asyncio.ensure_future(self._start(path, room))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await shielded(self._discard(starting), name="end of wireguard-go that nobody waited for")
            raise

    async def end(self, processes: Sequence[Process]) -> None:
        """End processes, and wait until they and their interfaces are gone."""
        for process in processes:
            process.signal_end()
        for process in processes:
            await asyncio.get_running_loop().run_in_executor(None, process.wait_end)
            self._all.discard(process)

    async def aclose(self) -> None:
        """End all, also those of wires."""
        await self.end(list(self._all))
        self._starter.shutdown()
        if self._decoy is not None:
            os.close(self._decoy.tun.file)

    async def _start(self, path: str, room: int) -> Process:
        check()
        async with self._turn:  # all interfaces have the decoy's name at first
            tun = await self._in_node(lambda spaces: self._interface(spaces, path))
            try:
                process = await asyncio.get_running_loop().run_in_executor(self._starter, self._spawn, tun, path)
            finally:
                os.close(tun.file)
            self._all.add(process)
            try:
                await _ready(process)
                await self._in_node(lambda spaces: self._settle(spaces, process, room))
            except BaseException:
                await self.end([process])
                raise
        return process

    async def _discard(self, starting: asyncio.Future[Process]) -> None:
        with contextlib.suppress(MeshError):
            await self.end([await starting])

    # --- in the netlink thread

    def _interface(self, spaces: Namespaces, path: str) -> _Tun:
        """A new interface; in the node's own namespace it needs no decoy, whose name it could not have there."""
        self._decoy = self._decoy or _Decoy.make(spaces)
        namespace = spaces.take(path)
        try:
            is_own = os.path.sameopenfile(namespace.descriptor, spaces.own.descriptor)
            name = _new_name() if is_own else self._decoy.tun.name
            return _Tun.make(namespace, name, self._decoy.flags)
        finally:
            spaces.give(namespace)

    def _settle(self, spaces: Namespaces, process: Process, room: int) -> None:
        """Give the name free for the next one; tell the MTU, up to which packets are filled, by the decoy's."""
        assert self._decoy is not None
        namespace = spaces.take(process.path)
        try:
            namespace.socket.apply([rename(process.index, _new_name())])
        finally:
            spaces.give(namespace)
        spaces.own.socket.apply([set_mtu(self._decoy.tun.index, room)])

    # --- in the thread that starts processes, which end with it

    def _spawn(self, tun: _Tun, path: str) -> Process:
        assert self._decoy is not None
        words = _words()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LOG_LEVEL": "error",
            "WG_PROCESS_FOREGROUND": "1",
            "WG_TUN_FD": str(tun.file),
        }
        try:
            with entered(self._decoy.namespace):
                _hide_run(again=self._has_hidden)
                self._has_hidden = True
                running = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", PROGRAM, tun.name],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    pass_fds=[tun.file],
                    start_new_session=True,
                )
        except OSError as error:
            os.close(words)
            raise Unsupported(f"cannot start {PROGRAM}: {error.strerror}") from None
        control = f"/proc/{running.pid}/root{_RUN}/wireguard/{tun.name}.sock"
        return Process(running, control, path, tun.index, words)


async def _ready(process: Process) -> None:
    end = time.monotonic() + _READY_TIMEOUT
    while not process.is_ready():
        if time.monotonic() > end:
            raise Unsupported(f"{PROGRAM} does not answer after {_READY_TIMEOUT:.0f} s")
        await asyncio.sleep(_PAUSE)


def _new_name() -> str:
    return f"nsm{secrets.token_hex(5)}"


def _flags() -> int:
    """Those of an interface of which this program can read packets."""
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"0\.0\.(\d{8})", said)
    is_new = version is not None and int(version[1]) >= _FIRST_WITHOUT_HEADER
    return _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR if is_new else _IFF_TUN


def _open_tun(name: str, flags: int) -> int:
    file = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, _TUNSETIFF, _INTERFACE_REQUEST.pack(name.encode(), flags))
    except OSError as error:
        os.close(file)
        raise Conflict(f"the kernel refused to make an interface for {PROGRAM}: {error.strerror}") from None
    return file


def _hide_run(*, again: bool) -> None:
    """Have the process that this thread starts next see an empty folder of its own where sockets are."""
    libc.unshare(libc.CLONE_FS | libc.CLONE_NEWNS)
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
    if again:
        libc.unmount(_RUN, libc.MNT_DETACH)
    libc.mount("none", _RUN, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=0700,size=64k")
    os.mkdir(f"{_RUN}/wireguard", 0o700)


class Ahead:
    """A process that is made ready while others are asked; ended by `drop` unless a wire has claimed it."""

    def __init__(self, making: Coroutine[Any, Any, Process | None], programs: Programs) -> None:
        self._making, self._programs = asyncio.ensure_future(making), programs
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
                await self._programs.end([process])


AHEAD: Key[Ahead] = Key("WireGuard made ahead")
"""What was begun of a connection's wire while others are asked."""
