"""A virtual machine: Debian's kernel under qemu's software emulation, on the host's file system.

The host's root is shown read-only under a layer of memory: the guest sees this checkout and its environment, and
changes nothing of them. It has two network cards, which reach only each other.
"""

import json
import lzma
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL = CHECKOUT / ".vm/root"
QEMU = CHECKOUT / ".vm/qemu"
"""A qemu with an emulated card that has virtual functions, if the machine's own has none: see scripts/vm-kernel."""
GUEST = Path(__file__).parent / "guest"
NEEDED = ["virtio_pci", "9pnet_virtio", "9p", "overlay"]
"""What the host's files are reached by; all other modules come from there."""

PARTS = ["apis", "chains", "forwarder-kernel", "forwarder-sriov", "services", "tests/vm"]

BOOT_SECONDS = 180
GRACE = 20
"""How much longer than the test itself the agent may take to report it."""


class Hung(Exception):
    """The guest did not do in time what it should; says what its console showed."""


@dataclass(frozen=True)
class Outcome:
    """How a test went, what it and its errors wrote, and what the kernel wrote meanwhile."""

    passed: bool
    output: str
    seconds: float
    console: str = ""


class Machine:
    """Boots when it is first needed, and again when it hung. `folder` holds what belongs to one run."""

    def __init__(self, folder):
        self.boot_seconds = 0.0
        self.kernel = ""
        self._folder = folder
        self._console, self._said = folder / "console", folder / "qemu"
        self._qemu = self._port = self._cannot_boot = None
        self._received = b""

    def boot(self):
        """Start, unless it runs; returns when the agent waits for tests. Raises `Hung`, and again if asked again."""
        if self._qemu is not None:
            return
        if self._cannot_boot is not None:
            raise self._cannot_boot
        begin = time.monotonic()
        # Python compiles thirty times slower in there, and what it writes is lost.
        subprocess.run([sys.executable, "-m", "compileall", "-q", *PARTS], cwd=CHECKOUT, check=False)
        self._console.write_bytes(b"")
        self._port, theirs = socket.socketpair()
        with theirs, self._said.open("wb") as said:
            self._qemu = subprocess.Popen(
                [*self._command(), "-chardev", f"socket,id=agent,fd={theirs.fileno()}"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[theirs.fileno()],
            )
        try:
            self.kernel = self._answer("boot", BOOT_SECONDS)["kernel"]
        except Hung as hung:
            self._cannot_boot = hung
            raise
        self.boot_seconds = time.monotonic() - begin

    def run(self, module, function, seconds):
        """Run a test inside. Raises `Hung` if it does not even report that its time is over."""
        self.boot()
        seen = self._console.stat().st_size
        self._port.sendall(json.dumps({"module": module, "function": function, "seconds": seconds}).encode() + b"\n")
        answer = self._answer(f"{module}.{function}", seconds + GRACE)
        return Outcome(**answer, console=self._console.read_bytes()[seen:].decode(errors="replace"))

    def stop(self):
        """End qemu. Nothing needs to be saved."""
        if self._qemu is None:
            return
        self._qemu.kill()
        self._qemu.wait()
        self._port.close()
        self._qemu = self._port = None
        self._received = b""

    def _answer(self, what, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self._received:
            readable, _, _ = select.select([self._port], [], [], max(0, end - time.monotonic()))
            data = self._port.recv(65536) if readable else b""
            if not data:
                raise self._hung(f"qemu ended during {what}" if readable else f"no end of {what} after {seconds} s")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _hung(self, what):
        self.stop()
        told = [line for file in (self._said, self._console) for line in file.read_text(errors="replace").splitlines()]
        return Hung("\n".join([what, "qemu and the guest's console said:", *told[-60:]]))

    def _command(self):
        return [
            # qemu does not outlive this process, however it ends
            *("setpriv", "--pdeathsig", "KILL", *_qemu()),
            *("-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", "2", "-m", "1024", *_cards()),
            *("-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"),
            *("-kernel", str(next(KERNEL.glob("boot/vmlinuz-*"))), "-initrd", str(self._initrd())),
            *("-append", "console=ttyS0 quiet panic=-1 mitigations=off intel_iommu=on"),
            *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
            *("-serial", f"file:{self._console}", "-serial", "chardev:agent"),
        ]

    def _initrd(self):
        """The first file system: init, busybox, the modules in the order in which they are loaded."""
        root = self._folder / "initrd"
        shutil.rmtree(root, ignore_errors=True)
        for name in ("bin", "dev", "proc", "sys", "host", "layer", "new", "modules"):
            (root / name).mkdir(parents=True)
        busybox = KERNEL / "bin/busybox"
        shutil.copy(busybox, root / "bin/busybox")
        for name in ("sh", "mount", "mkdir", "insmod", "ip", "ln", "rm", "uname", "hostname", "switch_root"):
            (root / "bin" / name).symlink_to("busybox")
        shutil.copy(GUEST / "init", root / "init")
        (root / "init").chmod(0o755)
        (modules,) = (KERNEL / "lib/modules").iterdir()
        for number, module in enumerate(in_order(modules, NEEDED)):
            (root / f"modules/{number:02}").write_bytes(unpacked(module))
        settings = {"MODULES": modules, "PYTHON": sys.executable, "CHECKOUT": CHECKOUT}
        (root / "settings").write_text(
            "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
        )
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        archive = subprocess.run(
            [busybox, "cpio", "-o", "-H", "newc"], input=names.encode(), capture_output=True, cwd=root, check=True
        )
        image = self._folder / "initrd.cpio"
        image.write_bytes(archive.stdout)
        return image


def _qemu():
    program = QEMU / "usr/bin/qemu-system-x86_64"
    folders = [f"{QEMU}/usr/share/{name}" for name in ("qemu", "seabios")]
    return (
        [str(program), *(word for folder in folders for word in ("-L", folder))] if program.exists() else [program.name]
    )


def _cards():
    """Two cards with seven virtual functions each, on one cable, behind an IOMMU."""
    yield from ("-device", "intel-iommu,intremap=on,caching-mode=on")
    for number in (1, 2):
        yield from ("-device", f"pcie-root-port,id=port{number},chassis={number},slot={number}")
        yield from ("-netdev", f"hubport,id=cable{number},hubid=0")
        yield from ("-device", f"igb,bus=port{number},netdev=cable{number},romfile=")


def in_order(modules, names):
    """The files of modules and of what they need, that first."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = [path, *others.split()]
    found = [path for name in names for path in reversed(needs.get(name, []))]
    return [modules / path for path in dict.fromkeys(found)]


def unpacked(module):
    """A module's bytes; newer packages hold them compressed."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data
