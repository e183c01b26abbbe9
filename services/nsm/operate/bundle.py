"""`nsm bundle`: everything that another person needs to see what is wrong, in one file without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsm.chains.errors import MeshError
from nsm.view.form import to_json

from . import redact
from .command import Command, parser_of, run
from .errors import OK, OperatorError, UsageError
from .output import DIM, YELLOW, Cell
from .target import has_begun

if TYPE_CHECKING:
    from nsm.mesh.rundir import RunDir

_LARGEST = 4 << 20
"""Bytes of one log or file of traces: the last ones are taken."""
_PATIENCE = 20.0
"""Seconds for the kernel objects of one namespace."""
_AT_ONCE = 4
KERNEL = """
ip -d -s link; echo; ip addr; echo; ip rule; ip -6 rule; echo; ip route show table all; echo; ip neigh; echo
ip -d -s xfrm state list nokeys; ip xfrm policy
ss -tulpn 2>/dev/null; nft list ruleset 2>/dev/null; tc -s qdisc show; true
"""
"""What the kernel has in a namespace. Keys are not among it: `wg show` and plain `ip xfrm state` would print some."""


@dataclass
class Contents:
    """What goes into a bundle: texts by the names of their files, and what could not be had."""

    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add_json(self, name: str, value: Any) -> None:
        """Add data, without its secrets."""
        self.files[name] = json.dumps(redact.plain(value), indent=2) + "\n"

    def add_text(self, name: str, value: str) -> None:
        """Add a text, of which lines may be JSON, without its secrets."""
        self.files[name] = redact.lines(value)


def main(arguments: list[str]) -> int:
    """Writes states, logs, traces, kernel objects and versions into one file, without keys and tokens.

    Names and addresses of the mesh are in it: look into it before you give it to others.
    """
    parser = parser_of("bundle", main.__doc__)
    parser.add_argument("file", nargs="?", metavar="FILE", help="where to write it [nsm-bundle-TIME.tar.gz]")
    return run(parser, arguments, _work)


def _work(command: Command) -> int:
    now = datetime.now(UTC)
    path = Path(command.arguments.file or f"nsm-bundle-{now:%Y%m%dT%H%M%SZ}.tar.gz")
    contents = Contents()
    contents.add_json("versions.json", _versions(now, str(command.target)))
    reached = asyncio.run(_states(command, contents))
    mesh = command.target.run()
    if mesh is not None:
        reached = _local(mesh, contents) or reached
    if not reached:
        raise OperatorError("; ".join(contents.missing))
    if not command.target.view:
        contents.add_text("kernel/host.txt", _kernel(["sh", "-c", KERNEL], "this host", contents))
    contents.add_text("missing.txt", "".join(f"{each}\n" for each in contents.missing))
    written = _write(path, contents, now.timestamp())
    return _show(command, path, contents, written)


async def _states(command: Command, contents: Contents) -> bool:
    """Add what the target's source knows; whether it could be reached."""
    try:
        async with command.target.source() as source:
            await has_begun(source)
            contents.add_json("snapshot.json", to_json(await source.snapshot()))
            contents.add_json("events.json", [to_json(each) for each in await source.events()])
    except (MeshError, OperatorError) as error:
        contents.missing.append(f"states: {error}")
        return False
    return True


def _local(mesh: RunDir, contents: Contents) -> bool:
    """Add what a local mesh has on this machine; whether there is anything."""
    from nsm.mesh.control import ask  # noqa: PLC0415 - only for local meshes
    from nsm.mesh.rundir import MeshCommandError  # noqa: PLC0415

    folders = {"logs": mesh.path / "log", "traces": mesh.traces}
    if not folders["logs"].is_dir():
        folders = {"logs": mesh.kept_logs}
    for name, folder in folders.items():
        for file, text in _files(folder):
            contents.add_text(f"{name}/{file}", text)
    try:
        status = ask(mesh, {"command": "status"})
    except MeshCommandError as error:
        contents.missing.append(f"status: {error}")
        return any(name.startswith("logs/") for name in contents.files)
    contents.add_json("status.json", status)
    workloads = {wire["client"] for wire in status["wires"]} | {wire["endpoint"] for wire in status["wires"]}
    known = {each["name"] for each in status["components"]}
    places = [*(node["name"] for node in status["nodes"]), *sorted(workloads & known)]
    enter = [sys.executable, "-m", "nsm.chains", "mesh", "--name", mesh.name, "exec"]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda each: _kernel([*enter, each, "--", "sh", "-c", KERNEL], each, contents), places)
        for place, text in zip(places, found, strict=True):
            contents.add_text(f"kernel/{place}.txt", text)
    return True


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """The texts of the files in `folder`, each with at most its last bytes, by name."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _LARGEST))
                found = file.read()
            if size > _LARGEST:  # not from the middle of a line, whose beginning might say that it is a secret
                found = found.partition(b"\n")[2]
            yield path.name, found.decode(errors="replace")


def _kernel(command: Sequence[str], place: str, contents: Contents) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        contents.missing.append(f"kernel objects of {place}: {error}")
        return ""
    if not done.stdout:
        contents.missing.append(f"kernel objects of {place}: {done.stderr.strip()[:500]}")
    return done.stdout + done.stderr


def _versions(now: datetime, target: str) -> dict[str, Any]:
    packages = {each.name: each.version for each in distributions() if each.name}
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    return {
        "at": now.isoformat(timespec="seconds"),
        "target": target,
        "nsm": {name: version for name, version in sorted(packages.items()) if name.startswith("nsm-")},
        "packages": {name: version for name, version in sorted(packages.items()) if not name.startswith("nsm-")},
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": system,
    }


def _write(path: Path, contents: Contents, now: float) -> int:
    """Write the bundle, readable by its owner only; returns its size in bytes. Raises `UsageError`."""
    folder = path.name.partition(".")[0]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another FILE") from None
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in sorted(contents.files.items()):
            data = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return path.stat().st_size


def _show(command: Command, path: Path, contents: Contents, size: int) -> int:
    output = command.output
    if output.is_json:
        output.json({"file": str(path), "bytes": size, "contents": sorted(contents.files), "missing": contents.missing})
        return OK
    output.line(f"{path}: {len(contents.files)} files, {size / 1024:.0f} KiB, without keys and tokens")
    for each in contents.missing:
        output.parts([Cell(f"missing: {each}", YELLOW)])
    output.line("names and addresses of the mesh are in it: look into it before you give it to others", DIM)
    return OK
