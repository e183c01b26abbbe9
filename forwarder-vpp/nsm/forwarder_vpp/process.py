"""VPP's process: an external one, or our own, which is started when there is none and outlives this forwarder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import MeshError, Unavailable
from nsm.chains.logs import log

_STARTING, _LOOK = 20.0, 0.01
"""Seconds: the longest start of VPP, and the pause between two looks at its socket."""
_EXITING, _EXIT_LOOK = 0x4, 0.1
"""The kernel's flag of a process that ends, and the seconds between two looks at it."""
_PLUGINS = ("af_packet", "af_xdp", "tap", "memif", "vxlan", "wireguard", "ikev2", "acl", "l3xc", "ping")
_ENGINES = ("crypto_native", "crypto_openssl", "crypto_ipsecmb")
_HOW = (
    "VPP is not installed: there is no program 'vpp'. Install FD.io's packages vpp, vpp-plugin-core and "
    "vpp-crypto-engines (docs/vpp.md tells how), or let NSM_VPP_API_SOCKET name the API socket of a running VPP"
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much VPP takes: bytes with a suffix (``256M``), packet buffers, and worker threads besides the main one."""

    heap: str = "256M"
    buffers: int = 32768
    workers: int = 0


class ExternalVPP:
    """A VPP that others run: it is waited for, and never started or ended."""

    is_own = False

    def __init__(self, api: str) -> None:
        self.api, self.stats = api, str(Path(api).with_name("stats.sock"))

    async def provide(self) -> None:
        """Nothing to do: connecting shows whether it is there."""

    def abandon(self) -> None:
        """It may answer later."""

    async def is_ending(self, pid: int) -> None:
        """Nothing is known of its process."""
        await asyncio.Event().wait()

    async def has_ended(self, pid: int) -> None:
        """Nor of its end."""


class OwnVPP:
    """A VPP of this forwarder, whose sockets and log are in `folder`.

    It survives the forwarder's end, so that packets pass meanwhile; the next process of the forwarder finds it there.
    """

    is_own = True

    def __init__(self, folder: Path, size: Size, program: str = "vpp") -> None:
        self._folder, self._size, self._program = folder, size, program
        self.api, self.stats = str(folder / "api.sock"), str(folder / "stats.sock")
        self._process: subprocess.Popen[bytes] | None = None

    async def provide(self) -> None:
        """Start VPP unless it runs; returns when it accepts connections. Raises `Unavailable`, `MeshError`."""
        if _accepts(self.api):
            return
        if (missing := not_installed(self._program)) is not None:
            raise MeshError(missing)
        self.abandon()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = self._folder / "startup.conf"
        configuration.write_text(self._configuration())
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and outlives this loop
                [self._program, "-c", str(configuration)], stdout=output, stderr=output, start_new_session=True
            )
        log.info("VPP started", pid=self._process.pid, folder=str(self._folder))
        try:
            async with asyncio.timeout(_STARTING):
                while not _accepts(self.api):
                    if self._process.poll() is not None:
                        raise Unavailable(f"VPP ended with status {self._process.returncode}: {self._last_words()}")
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise Unavailable(f"VPP has not opened {self.api} after {_STARTING:.0f} s: {self._last_words()}") from None

    def abandon(self) -> None:
        """End a VPP that does not answer, or has lost its socket: it would keep its interfaces."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        try:
            former = int((self._folder / "pid").read_text())
            if Path(f"/proc/{former}/cmdline").read_bytes().endswith(f"{self._folder}/startup.conf\0".encode()):
                os.kill(former, signal.SIGKILL)
        except (OSError, ValueError):
            return

    async def is_ending(self, pid: int) -> None:
        """Return soon after VPP's process begins to end.

        The kernel closes its packet sockets first, of which there may be hundreds, and its other sockets seconds later.
        """
        while not _stat(pid)[1] & _EXITING:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(_EXIT_LOOK)

    async def has_ended(self, pid: int) -> None:
        """Return when nothing is left of a process that ends, or after some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STARTING):
                while (stat := _stat(pid))[0] != "Z" and stat[1] & _EXITING:  # noqa: ASYNC110 - no event reports it
                    await asyncio.sleep(_LOOK)

    def _last_words(self) -> str:
        lines = (self._folder / "output").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def _configuration(self) -> str:
        folder, size = self._folder, self._size
        workers = f"  workers {size.workers}\n" if size.workers else ""
        plugins = "".join(f"  plugin {name}_plugin.so {{ enable }}\n" for name in (*_PLUGINS, *_ENGINES))
        return (
            f"unix {{\n  nodaemon\n  runtime-dir {folder}\n  cli-listen {folder}/cli.sock\n"
            f"  pidfile {folder}/pid\n  log {folder}/log\n}}\n"
            f"socksvr {{\n  socket-name {self.api}\n}}\n"
            f"statseg {{\n  socket-name {self.stats}\n  page-size 4K\n}}\n"
            f"memory {{\n  main-heap-size {size.heap}\n  main-heap-page-size 4K\n}}\n"
            f"buffers {{\n  buffers-per-numa {size.buffers}\n  {_buffers(size.buffers)}\n}}\n"
            f"cpu {{\n{workers}}}\napi-segment {{\n  prefix nsm-{os.getpid()}\n}}\n"
            f"plugins {{\n  plugin default {{ disable }}\n{plugins}}}\n"
        )


def _stat(pid: int) -> tuple[str, int]:
    """State and flags of a process; as those of a zombie if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", _EXITING
    return fields[0], int(fields[6])


def not_installed(program: str = "vpp") -> str | None:
    """What to do if VPP is not installed; None if it is."""
    return None if shutil.which(program) else _HOW


def _buffers(count: int) -> str:
    """No buffer may cross a page: in small pages half of the buffers of this size do, and of larger ones nearly all."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free, size = (int(told.get(name, "0").split()[0]) for name in ("HugePages_Free", "Hugepagesize"))
    if free * size > count * 4:
        return "default data-size 3776\n  page-size default-hugepage"
    return "default data-size 2048\n  page-size 4K"


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
