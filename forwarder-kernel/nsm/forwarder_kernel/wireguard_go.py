"""WireGuard in userspace, for kernels without it: one `wireguard-go` process for each wire.

The process has its UDP socket in the node's namespace; its interface is made in the workload's, by us, and handed over
open: an interface that is made in one namespace and moved to another takes the kernel 20 ms. The program looks up its
interface by name in its own namespace all the same, so there is a decoy of that name there, from which all processes
also read the MTU of the underlay, and which they keep open. Their control sockets are in mount namespaces of their own,
reached through /proc, so that nothing on the machine has to be writable and no two names collide.

A process ends with its wire, or when no process is left in the workload's namespace, which it would keep forever. It
outlives the forwarder, as a kernel's device does: the next one finds it by its environment, and reads its keys from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nsm.chains import libc
from nsm.chains.core import Backoff, Conflict, FileKey, MeshError, Tasks, Unsupported, shielded
from nsm.chains.core.descriptors import facts_of
from nsm.chains.forwarding.sides import Wireguard
from nsm.chains.logs import log
from nsm.chains.model.wireguard import WireguardSettings
from nsm.chains.netlink import KEEPALIVE, Namespace, Namespaces, rename, set_mtu, set_up
from nsm.chains.netlink.namespaces import entered
from nsm.chains.netlink.processes import Processes

PROGRAM = "wireguard-go"
_TUN, _RUN = "/dev/net/tun", os.path.realpath("/var/run")
_TUNSETIFF, _INTERFACE_REQUEST = 0x400454CA, struct.Struct("16sH22x")
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_FIRST_WITHOUT_HEADER = 20230300
"""From this version on, by its date, the program reads packets without the header that tun puts before them."""
_READY_TIMEOUT, _PAUSE, _ANSWER_TIMEOUT = 5.0, 0.0005, 2.0
_FIRST_LOOK, _LONGEST_LOOK, _LOOKS_GROW = 0.02, 5.0, 1.3
"""Seconds between looks at a namespace without processes that another process has open: most let go of it soon."""
_F_ADD_SEALS, _F_SEAL_GROW, _WORDS = 1033, 0x4, 4096
_ANSWER_SIZE = 65536
_WIRE, _INTERFACE = "NSM_WIRE", "NSM_INTERFACE"
"""In the environment of a process: the alias of its wire; index of its interface, device and inode of its namespace."""
_DECOY = "nsm: the name and the MTU that WireGuard programs see; no packet goes here"

T = TypeVar("T")


class InNode(Protocol):
    """Runs work in the thread that talks to the kernel."""

    async def __call__(self, work: Callable[[Namespaces], T]) -> T:
        """The result of `work`."""
        ...


@dataclass(slots=True, eq=False)
class Process:
    """A running wireguard-go and its interface, which is down at first and has a name of its own."""

    pid: int
    handle: int
    """A pidfd: it stays this process's."""
    control: str
    """The path of its control socket."""
    key: FileKey
    """Device and inode of the namespace that its interface is in."""
    index: int
    alias: str
    """That of the wire that it is for."""
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    """None: an earlier forwarder's, which outlived that."""
    words: int = -1
    """What it writes to stderr: a file in memory."""
    is_wired: bool = False
    """Whether there is a wire that it makes."""
    _ending: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.handle >= 0 and not self._has_ended(0)

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
            raise Conflict(f"UDP port {wire.port} of this node is taken by another process")
        if number:
            raise Unsupported(f"{PROGRAM} refused its configuration: {os.strerror(abs(number))}")

    def last_handshake(self) -> int:
        """When it last completed a handshake with its peer (Unix time, seconds); 0: not yet."""
        return int(self._ask(["get=1"]).get("last_handshake_time_sec", "0"))

    def settings(self) -> WireguardSettings | None:
        """What it was set to; None if it was not yet. Raises `Unsupported`."""
        told = self._ask(["get=1"])
        if "private_key" not in told or "public_key" not in told:
            return None
        keys = [bytes.fromhex(told[name]) for name in ("private_key", "public_key")]
        return WireguardSettings(keys[0], int(told.get("listen_port", "0")), keys[1])

    def signal_end(self) -> None:
        """Ask the kernel to end it, and with it its interface and its port."""
        if self.handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def wait_end(self) -> None:
        """Wait until it has ended; a second call does nothing."""
        with self._ending:
            if self.handle >= 0:
                self._has_ended(None)
            if self.child is not None:
                self.child.wait()
            self._close()

    def let_go(self) -> None:
        """Let it live on, for the next forwarder."""
        with self._ending:
            self._close()
            if self.child is not None:
                self.child.returncode = 0  # it is not to be waited for
                self.child = None

    def _close(self) -> None:
        for descriptor in (self.handle, self.words):
            if descriptor >= 0:
                os.close(descriptor)
        self.handle = self.words = -1

    def _has_ended(self, timeout: int | None) -> bool:
        waiting = select.poll()
        waiting.register(self.handle, select.POLLIN)
        return bool(waiting.poll(timeout))

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
        said = os.pread(self.words, _WORDS, 0) if self.words >= 0 else b""
        lines = said.rstrip(b"\0").decode(errors="replace").strip().split("\n")
        return lines[-1] or f"exit code {self.child.wait() if self.child is not None else 'unknown'}"


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
    key: FileKey
    """Device and inode of its namespace."""
    file: int

    @classmethod
    def make(cls, namespace: Namespace, name: str, flags: int) -> _Tun:
        with entered(namespace.descriptor):
            file = _open_tun(name, flags)
        link = namespace.socket.link(name=name)
        assert link is not None
        return cls(name, link.index, namespace.key, file)


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
        spaces.own.socket.apply([set_up(tun.index, _DECOY)])
        return cls(tun, spaces.own.descriptor, flags)


class Programs:
    """The processes of one forwarder. `in_node` is the thread that talks to the kernel, `processes` what it sees."""

    def __init__(self, in_node: InNode, processes: Processes) -> None:
        self._in_node, self._processes = in_node, processes
        self._former: dict[str, Process] = {}
        self._watches = Tasks("wireguard-go")
        self._watched: dict[Process, asyncio.Task[None]] = {}
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="wireguard-go")
        self._all: set[Process] = set()
        self._decoy: _Decoy | None = None
        self._turn = asyncio.Lock()
        self._has_hidden = False

    def __len__(self) -> int:
        """How many processes there are."""
        return len(self._all)

    def former(self, alias: str) -> Process | None:
        """The process that an earlier forwarder left for a wire."""
        return self._former.get(alias)

    def all_former(self) -> list[str]:
        """The wires that an earlier forwarder left processes for."""
        return list(self._former)

    def claim_former(self, alias: str) -> Process | None:
        """The same, which is the caller's now."""
        if (process := self._former.pop(alias, None)) is not None:
            self._all.add(process)
        return process

    async def end_former(self, aliases: Iterable[str]) -> None:
        """End what an earlier forwarder left for some wires."""
        await self.end([process for alias in aliases if (process := self._former.pop(alias, None)) is not None])

    def watch(self, process: Process) -> None:
        """The wire exists: end the process when no other is left in the workload's namespace, which it keeps."""
        process.is_wired = True
        name = f"watch over the workload of {process.alias}"
        self._watched[process] = self._watches.spawn(self._end_if_deserted(process), name=name)

    async def start(self, path: str, room: int, alias: str) -> Process:
        """A process whose interface is in the namespace at `path`; `room` is the MTU that the underlay leaves.

        `alias` is that of the wire that it is for. Raises `Unsupported` if this machine or this user cannot.
        A cancelled call leaves no process behind.
        """
        starting = asyncio.ensure_future(self._start(path, room, alias))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await shielded(self._discard(starting), name="end of an unused wireguard-go")
            raise

    async def end(self, processes: Sequence[Process]) -> None:
        """End processes, and wait until they and their interfaces are gone."""
        for process in processes:
            process.signal_end()
            watch = self._watched.pop(process, None)
            if watch is not None and watch is not asyncio.current_task():
                watch.cancel()
        for process in processes:  # each one's index and port are free then
            await asyncio.get_running_loop().run_in_executor(None, process.wait_end)
            self._all.discard(process)

    async def aclose(self) -> None:
        """End those that have no wire; the others live on."""
        await self._watches.aclose()
        await self.end([process for process in self._all if not process.is_wired])
        for process in [*self._all, *self._former.values()]:
            process.let_go()
        self._starter.shutdown()
        if self._decoy is not None:
            os.close(self._decoy.tun.file)

    async def _start(self, path: str, room: int, alias: str) -> Process:
        check()
        async with self._turn:  # all interfaces have the decoy's name at first
            tun = await self._in_node(lambda spaces: self._interface(spaces, path))
            try:
                process = await asyncio.get_running_loop().run_in_executor(self._starter, self._spawn, tun, alias)
            finally:
                os.close(tun.file)
            self._all.add(process)
            try:
                await _ready(process)
                await self._in_node(lambda spaces: self._settle(spaces, process, path, room))
            except BaseException:
                await self.end([process])
                raise
        return process

    async def _discard(self, starting: asyncio.Future[Process]) -> None:
        with contextlib.suppress(MeshError):
            await self.end([await starting])

    async def _end_if_deserted(self, process: Process) -> None:
        was_seen, backoff = self._processes.sees_all, Backoff(_FIRST_LOOK, _LONGEST_LOOK, factor=_LOOKS_GROW)
        while not (was_seen and await self._in_node(lambda spaces: self._is_deserted(spaces, process.key))):
            handle = await self._in_node(lambda _: self._someone_in(process.key))
            if handle is None:
                await asyncio.sleep(backoff.next())  # another process has it open: the end of that is not reported
                continue
            was_seen = True
            backoff.reset()
            try:
                await _readable(handle)
            finally:
                os.close(handle)
        log.info("the workload is gone, and its WireGuard with it", wire=process.alias)
        await self.end([process])

    # --- in the netlink thread

    def _is_deserted(self, spaces: Namespaces, key: FileKey) -> bool:
        return self._processes.is_deserted(key, spaces.descriptors())

    def find(self, spaces: Namespaces, mark: str) -> None:
        """Find what an earlier forwarder left: processes of wires whose alias begins with `mark`."""
        for pid in self._processes.look().get(spaces.own.key, ()):
            if (process := _found(pid, mark)) is not None:
                self._former[process.alias] = process

    def _someone_in(self, key: FileKey) -> int | None:
        """A pidfd of a process in a namespace; None if none is seen."""
        for pid in self._processes.look(fresh=False).get(key, ()):
            with contextlib.suppress(OSError):
                if facts_of(f"/proc/{pid}/ns/net").key == key:  # it may be another one's number by now
                    return os.pidfd_open(pid)
        return None

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

    def _settle(self, spaces: Namespaces, process: Process, path: str, room: int) -> None:
        """Give the name free for the next one; tell the MTU, up to which packets are filled, by the decoy's."""
        assert self._decoy is not None
        namespace = spaces.take(path)
        try:
            namespace.socket.apply([rename(process.index, _new_name())])
        finally:
            spaces.give(namespace)
        spaces.own.socket.apply([set_mtu(self._decoy.tun.index, room)])

    # --- in the thread that starts processes

    def _spawn(self, tun: _Tun, alias: str) -> Process:
        assert self._decoy is not None
        words = _words()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LOG_LEVEL": "error",
            "WG_PROCESS_FOREGROUND": "1",
            "WG_TUN_FD": str(tun.file),
            _WIRE: alias,
            _INTERFACE: f"{tun.index} {tun.key[0]} {tun.key[1]}",
        }
        try:
            with entered(self._decoy.namespace):
                _hide_run(again=self._has_hidden)
                self._has_hidden = True
                running = subprocess.Popen(
                    [PROGRAM, tun.name],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    pass_fds=[tun.file, self._decoy.tun.file],
                    start_new_session=True,
                )
        except OSError as error:
            os.close(words)
            raise Unsupported(f"cannot start {PROGRAM}: {error.strerror}") from None
        control = f"/proc/{running.pid}/root{_RUN}/wireguard/{tun.name}.sock"
        handle = os.pidfd_open(running.pid)
        return Process(running.pid, handle, control, tun.key, tun.index, alias, running, words)


def _found(pid: int, mark: str) -> Process | None:
    """The process of that number if it was started for one of the wires."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.pidfd_open(pid)
        try:
            variables = _environment(pid)
            alias = variables.get(_WIRE, "")
            if not alias.startswith(mark):
                return None
            index, *key = map(int, variables[_INTERFACE].split())
            folder = f"/proc/{pid}/root{_RUN}/wireguard"
            (socket_name,) = os.listdir(folder)
            process = Process(pid, handle, f"{folder}/{socket_name}", (key[0], key[1]), index, alias)
            handle = -1
            return process
        finally:
            if handle >= 0:
                os.close(handle)
    return None


def _environment(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/comm") as file:
        if file.read().strip() != PROGRAM:
            return {}
    with open(f"/proc/{pid}/environ", "rb") as file:
        return dict(each.split("=", 1) for each in file.read().decode(errors="replace").split("\0") if "=" in each)


async def _readable(descriptor: int) -> None:
    """Wait for a descriptor: a pidfd becomes readable when its process has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


async def _ready(process: Process) -> None:
    end = time.monotonic() + _READY_TIMEOUT
    while not process.is_ready():
        if time.monotonic() > end:
            raise Unsupported(f"{PROGRAM} does not answer after {_READY_TIMEOUT:.0f} s")
        await asyncio.sleep(_PAUSE)


def key_at(path: str) -> FileKey | None:
    """Device and inode of the namespace at a path; None if there is none."""
    try:
        return facts_of(path).key
    except OSError:
        return None


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
        """End the process, unless a wire has claimed it."""
        if not self._is_claimed:
            self._is_claimed = True
            self._making.cancel()
            await asyncio.wait([self._making])
            if not self._making.cancelled() and not self._making.exception() and (process := self._making.result()):
                await self._programs.end([process])
