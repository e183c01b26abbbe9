"""`nsm mesh`: a whole mesh on this machine."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .control import ask
from .logfile import names_in, readable
from .rundir import MeshCommandError, RunDir

_CANNOT_RUN = 127
"""What a shell answers, too, when there is no such command."""


def main(arguments: list[str]) -> int:
    """A whole mesh on this machine: up, status, exec, logs, down."""
    words, dashes, command = _split(arguments)
    parsed = _parser().parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if dashes and parsed.work is not _exec:
            raise MeshCommandError("only exec takes a command after --")
        parsed.command = command
        result: int = parsed.work(RunDir.of(parsed.name), parsed)
    except MeshCommandError as error:
        print(f"nsm mesh: {error}", file=sys.stderr)
        return _CANNOT_RUN if parsed.work is _exec else 1
    return result


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """What stands before the first ``--``, whether there is one, and what stands behind: that is not ours to read."""
    if "--" not in arguments:
        return arguments, False, []
    place = arguments.index("--")
    return arguments[:place], True, arguments[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nsm mesh", description=main.__doc__)
    parser.add_argument("--name", default="default", help="which mesh; several can live side by side")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = _command(commands, "up", _up, "start a mesh; returns when every client has its wires")
    up.add_argument("-f", "--file", help="the topology; without one: one node, one endpoint, one client")
    up.add_argument(
        "--timeout", type=_seconds, default=120.0, metavar="SECONDS", help="give up after that long [120]; 0: never"
    )
    status = _command(commands, "status", _status, "show components and wires")
    status.add_argument("--json", action="store_true", help="for programs")
    run = _command(commands, "exec", _exec, "run a command in a workload: exec WORKLOAD -- CMD...")
    run.add_argument("workload")
    _command(commands, "logs", _logs, "show what components logged").add_argument("component", nargs="?")
    _command(commands, "down", _down, "take the mesh down")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _command(commands: Any, name: str, work: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.add_argument("--name", default=argparse.SUPPRESS, help="which mesh")
    parser.set_defaults(work=work)
    return parser


def show(event: Mapping[str, Any]) -> None:
    """One line for what happened while a mesh came up."""
    component = event.get("component", "")
    if event["event"] == "started":
        print(f"  {component:<24} ready in {event['ms']} ms")
    elif event["event"] == "wire up":
        addresses = ", ".join(event.get("addresses") or [])
        print(f"  {component:<24} {event['interface']} to {event['endpoint']}: {addresses} in {event['ms']} ms")
    elif event["event"] in {"no wire yet", "ended"}:
        print(f"  {component:<24} {event['event']}: {event.get('error') or event.get('reason')}", file=sys.stderr)
    sys.stdout.flush()


def _up(run: RunDir, parsed: argparse.Namespace) -> int:
    from .launch import put_off_interruptions, up  # noqa: PLC0415 - only this command needs all that a supervisor needs
    from .topology import TopologyError, read  # noqa: PLC0415

    try:
        topology = read(parsed.file)
    except TopologyError as error:
        raise MeshCommandError(str(error)) from None
    put_off_interruptions()  # an exit code of 0 means that there is a mesh, any other that there is none
    up(run, topology, show, timeout=parsed.timeout or None)
    print(f"mesh {run.name!r} is up", flush=True)
    return 0


def _down(run: RunDir, _parsed: argparse.Namespace) -> int:
    from .enter import down  # noqa: PLC0415 - as above

    down(run)
    print(f"mesh {run.name!r} is down")
    return 0


def _status(run: RunDir, parsed: argparse.Namespace) -> int:
    status = ask(run, {"command": "status"})
    print(json.dumps(status, indent=2) if parsed.json else "\n".join(status_lines(status)))
    return 0


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """A mesh's status for a person: its wires, then its components."""
    wires = [_wire_row(wire) for wire in status["wires"]]
    components = [_component_row(component) for component in status["components"]]
    return [
        *_table(("CLIENT", "INTERFACE", "SERVICE", "ENDPOINT", "STATE", "ADDRESSES", "PATH"), wires),
        "",
        *_table(("COMPONENT", "RUNS", "NODE", "PID", "STATE", ""), components),
    ]


def _wire_row(wire: Mapping[str, Any]) -> tuple[str, ...]:
    addresses = " ".join(f"{s} → {d}" for s, d in zip(wire["src_ips"], wire["dst_ips"], strict=False))
    path = " → ".join(wire["path"]) or wire.get("reason", "")
    interface = f"{wire['interface'] or '?'} ({wire['mechanism']})"
    return wire["client"], interface, wire["service"], wire["endpoint"] or "-", wire["state"], addresses or "-", path


def _component_row(component: Mapping[str, Any]) -> tuple[str, ...]:
    problem = "" if component["state"] == "ready" else component["last_warning"]
    pid = str(component["pid"] or "-")
    return component["name"], component["command"], component["node"], pid, component["state"], problem


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]


def _exec(run: RunDir, parsed: argparse.Namespace) -> int:
    from .enter import become_command  # noqa: PLC0415 - as above

    if not parsed.command:
        raise MeshCommandError("which command? write it after --: nsm mesh exec WORKLOAD -- CMD...")
    become_command(run, parsed.workload, parsed.command)
    return _CANNOT_RUN


def _logs(run: RunDir, parsed: argparse.Namespace) -> int:
    folder = run.path / "log"
    if not folder.is_dir():
        raise MeshCommandError(f"mesh {run.name!r} is not up, and keeps no logs (there is nothing at {run.path})")
    names = names_in(folder)
    if parsed.component and parsed.component not in names:
        raise MeshCommandError(f"there is no log of {parsed.component!r}; there are {', '.join(names)}")
    for line in readable(folder, [parsed.component] if parsed.component else names):
        print(line)
    return 0
