"""Which control groups may open a device node: cgroup v1 has a list of its own for that, cgroup v2 a program.

Nothing of it is remembered: what a group is permitted is read from it, so an earlier process's permission is found
again, and is revoked. What a group had before, or has by a wider permission, is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nsm.chains.core import Conflict, InvalidRequest

from . import program
from .program import Device

_LIST, _V2 = "devices.list", "cgroup.controllers"
_PART = re.compile(r"[A-Za-z0-9_.:@\\-]{1,255}")
_LEAST_DEPTH = 2
"""Parts of a group's path: above are the groups of all pods, or of all of a class."""
_DEVICES_LINE, _V2_LINE = re.compile(r"[0-9]+:(?:[^:]*,)?devices(?:,[^:]*)?:(.*)"), re.compile("0::(.*)")


class Permissions:
    """Permissions for groups below the folder `root`: of v1's hierarchy `devices`, or of v2; `proc` is /proc.

    If `root` does not exist and its parent folder is of v2, that is it: upstream's default names v1's.
    """

    def __init__(self, root: str, proc: str = "/proc") -> None:
        self._root, self._proc = Path(root), Path(proc)
        if not self._root.is_dir() and (self._root.parent / _V2).exists():
            self._root = self._root.parent

    @property
    def is_v2(self) -> bool:
        """Whether programs decide, and not lists."""
        return not (self._root / _LIST).exists() and (self._root / _V2).exists()

    def check(self) -> None:
        """Raise `InvalidRequest` if there are no control groups at the folder."""
        if not (self._root / _LIST).exists() and not (self._root / _V2).exists():
            raise InvalidRequest(
                f"{self._root} is no hierarchy of control groups (devices of v1, or v2); is it mounted?"
            )

    def matching(self, pattern: str) -> list[Path]:
        """The groups that a client names: a path whose last part may be `*`. Raises `InvalidRequest`."""
        parts = pattern.strip("/").split("/")
        *above, last = parts
        invalid = [each for each in above if not _PART.fullmatch(each) or each in (".", "..")]
        if invalid or (last != "*" and (not _PART.fullmatch(last) or last in (".", ".."))):
            raise InvalidRequest(f"{pattern[:200]!r} is not a control group; expected a path such as /kubepods/pod1/*")
        if len(parts) < _LEAST_DEPTH + 1:
            raise InvalidRequest(f"{pattern[:200]!r} names more than the groups of one pod")
        folder = self._root.joinpath(*above)
        if folder.resolve() != self._root.resolve().joinpath(*above):
            raise InvalidRequest(f"{pattern[:200]!r} contains a symbolic link, which is not followed")
        found = [each for each in _folders(folder) if last in ("*", each.name)]
        if not found:
            raise Conflict(f"there is no control group {pattern[:200]} below {self._root}")
        return [self._restricted(each) for each in found]

    def of_processes(self, pids: Iterable[int]) -> list[Path]:
        """The groups that decide for these processes."""
        line, found = _V2_LINE if self.is_v2 else _DEVICES_LINE, {}
        for pid in pids:
            with contextlib.suppress(OSError):
                text = (self._proc / str(pid) / "cgroup").read_text()
                for path in (match[1] for match in map(line.fullmatch, text.splitlines()) if match is not None):
                    parts = [part for part in path.split("/") if part]
                    if ".." not in parts and parts and (folder := self._root.joinpath(*parts)).is_dir():
                        found[self._restricted(folder)] = True
        return list(found)

    def permit(self, groups: Sequence[Path], devices: Sequence[Device]) -> None:
        """Let the processes of groups open devices. Raises `Conflict` if the kernel refuses that."""
        for group in groups:
            with _told(group, "permit"):
                if self.is_v2:
                    there = program.permitted(str(group))
                    program.permit(str(group), list(dict.fromkeys([*there, *devices])))
                    continue
                for major, minor in devices:
                    if not _allows((group / _LIST).read_text(), major, minor):
                        (group / "devices.allow").write_text(f"c {major}:{minor} rwm")

    def revoke(self, groups: Iterable[Path], device: Device, common: Device) -> None:
        """Take back what `permit` gave: `device`, and `common` with the last device of its kind.

        Groups that are gone are fine.
        """
        for group in groups:
            with contextlib.suppress(FileNotFoundError), _told(group, "revoke"):
                there = self.given(group, device[0])
                if device not in there:
                    continue
                left = set(there) - {device, common}
                gone = [device] if left else [device, common]
                if self.is_v2:
                    kept = [each for each in program.permitted(str(group)) if each not in gone]
                    program.permit(str(group), kept)
                    continue
                for major, minor in gone:
                    if _line(major, minor) in (group / _LIST).read_text().splitlines():
                        (group / "devices.deny").write_text(f"c {major}:{minor} rwm")

    def given(self, group: Path, major: int) -> list[Device]:
        """The single devices of a major number that a group may open. Raises OSError."""
        if self.is_v2:
            return [each for each in program.permitted(str(group)) if each[0] == major]
        lines = (group / _LIST).read_text().splitlines()
        found = (re.fullmatch(rf"c {major}:([0-9]+) rwm", line) for line in lines)
        return [(major, int(each[1])) for each in found if each is not None]

    def holders(self, device: Device) -> list[Path]:
        """All groups that may open a device by a permission of its own."""
        found = []
        for folder, _, _ in os.walk(self._root):
            group = Path(folder)
            with contextlib.suppress(OSError):
                if group != self._root and device in self.given(group, device[0]):
                    found.append(group)
        return found

    def _restricted(self, group: Path) -> Path:
        """The group, or on v2 the nearest one above it that forbids anything: a container may have groups inside."""
        if not self.is_v2:
            return group
        for each in (group, *group.parents):
            if each == self._root:
                break
            with contextlib.suppress(OSError):
                if program.has_programs(str(each)):
                    return each
        return group


def _allows(text: str, major: int, minor: int) -> bool:
    wide = {"a *:* rwm", "c *:* rwm", f"c {major}:* rwm", _line(major, minor)}
    return not wide.isdisjoint(text.splitlines())


def _line(major: int, minor: int) -> str:
    return f"c {major}:{minor} rwm"


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return []


@contextlib.contextmanager
def _told(group: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Conflict(f"cannot {what} devices to the control group {group}: {error.strerror or error}") from None
