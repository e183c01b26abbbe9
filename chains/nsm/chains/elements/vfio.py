"""VFIO: a program uses a virtual function of a network card itself, by device nodes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import (
    CGROUP_DIR,
    DEVICE_MAJOR,
    DEVICE_MINOR,
    INODE_URL,
    IOMMU_GROUP,
    VFIO,
    VFIO_MAJOR,
    VFIO_MINOR,
)
from nsm.chains.core import Call, Conflict, Element, Handler, InvalidRequest
from nsm.chains.core.named_files import mechanisms_of
from nsm.chains.model.values import read_number

from .kernel import own_namespace

_V1, _V2 = re.compile(r"[0-9]+:(?:[^:]*,)?devices(?:,[^:]*)?:(.*)"), re.compile("0::(.*)")
_GROUP = re.compile("[0-9]{1,10}")
_LARGEST_MAJOR, _LARGEST_MINOR = (1 << 12) - 1, (1 << 20) - 1


class VfioClient(Element):
    """For a client: let the forwarder permit its control groups to use the device, and make the device's nodes.

    The nodes, `vfio` and one called as the IOMMU group, are made in `folder`; existing ones stay, and nothing is
    removed at the end. Requests without a VFIO mechanism pass unchanged.
    """

    def __init__(self, folder: str = "/dev/vfio", *, namespace: str | None = None, cgroups: str | None = None) -> None:
        """`cgroups` is the content of /proc/self/cgroup, if not that of this process."""
        self._folder, self._namespace = Path(folder), namespace or own_namespace()
        self._groups = own_groups(Path("/proc/self/cgroup").read_text() if cgroups is None else cgroups)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Complete the mechanisms on the way out, make the nodes on the way back."""
        for mechanism in mechanisms_of(call.request):
            if mechanism.type == VFIO:
                mechanism.parameters[INODE_URL] = self._namespace
                if self._groups:
                    mechanism.parameters[CGROUP_DIR] = self._groups
        connection = await rest.request(call)
        if connection.mechanism is not None and connection.mechanism.type == VFIO:
            self._make_nodes(connection.mechanism)
        return connection

    def _make_nodes(self, mechanism: Mechanism) -> None:
        group = mechanism.parameters.get(IOMMU_GROUP, "")
        if not _GROUP.fullmatch(group):
            raise InvalidRequest(f"the forwarder's answer has no IOMMU group: {group[:20]!r}")
        numbers = {
            "vfio": _device(mechanism, VFIO_MAJOR, VFIO_MINOR),
            group: _device(mechanism, DEVICE_MAJOR, DEVICE_MINOR),
        }
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            for name, number in numbers.items():
                _make_node(self._folder / name, number)
        except OSError as error:
            raise Conflict(
                f"cannot make the device nodes in {self._folder}: {error.strerror}; it takes CAP_MKNOD"
            ) from None


def own_groups(cgroups: str) -> str:
    """The control groups of a process's pod, by a pattern for a forwarder; empty if they are not shown.

    `cgroups` is its /proc/self/cgroup. On cgroup v2 a container usually sees itself at the root.
    """
    for form in (_V1, _V2):
        for line in cgroups.splitlines():
            found = form.fullmatch(line)
            if found is not None and found[1].count("/") > 1 and "/.." not in found[1]:
                return f"{found[1].rpartition('/')[0]}/*"
    return ""


def _device(mechanism: Mechanism, major: str, minor: str) -> int:
    numbers = [
        read_number(mechanism.parameters.get(key, ""), largest)
        for key, largest in ((major, _LARGEST_MAJOR), (minor, _LARGEST_MINOR))
    ]
    if numbers[0] is None or numbers[1] is None:
        raise InvalidRequest(f"the forwarder's answer has no device: {major}, {minor}")
    return os.makedev(numbers[0], numbers[1])


def _make_node(path: Path, number: int) -> None:
    """Existing nodes stay, unless they are another device's: an earlier connection had another group there."""
    try:
        there = path.lstat()
        if stat.S_ISCHR(there.st_mode) and there.st_rdev == number:
            return
        path.unlink()
    except FileNotFoundError:
        pass
    os.mknod(path, stat.S_IFCHR | 0o666, number)
    path.chmod(0o666)  # whatever the umask is
