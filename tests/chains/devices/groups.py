"""Real control groups of this machine: those of v1 that list devices, and those of v2; and processes in them."""

import contextlib
import os
import stat
from pathlib import Path

from nsm.chains.devices import program
from nsm.chains.devices.program import _instruction
from nsm.chains.libc import mount, unmount

V1 = Path("/sys/fs/cgroup/devices")
NOTHING = _instruction(0xB7, 0, 0, 0, 0) + _instruction(0x95, 0, 0, 0, 0)
"""A device program that permits nothing."""
ZERO, FULL = (1, 5), (1, 7)
"""Devices that every kernel has: /dev/zero, /dev/full."""


@contextlib.contextmanager
def groups_of_v1(*names):
    """New groups below one of their own, which may open nothing; the hierarchy."""
    top = V1 / f"nsm-test-{os.getpid()}"
    with _made(top, names) as groups:
        for group in groups:
            (group / "devices.deny").write_text("a")
        yield V1, groups


@contextlib.contextmanager
def groups_of_v2(root, *names):
    """The same for v2, which is mounted at `root`."""
    root.mkdir()
    mount("none", str(root), "cgroup2", what="mount cgroup2")
    try:
        with _made(root / f"nsm-test-{os.getpid()}", names) as groups:
            for group in groups:
                program.attach(str(group), NOTHING)
            yield root, groups
    finally:
        unmount(str(root))


@contextlib.contextmanager
def _made(top, names):
    groups = [top / name for name in names]
    for group in groups:
        group.mkdir(parents=True)
    try:
        yield groups
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)


def opens(group, node):
    """Whether a process of a group can open a device node."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            code = 1
            os.close(os.open(node, os.O_RDWR))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1)
    return code == 0


def node(folder, device):
    path = folder / f"{device[0]}-{device[1]}"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*device))
    return path
