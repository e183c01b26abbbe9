"""`nsm mesh`: a whole mesh on this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from nsm.chains.core import MeshError

from .rundir import MeshCommandError, RunDir
from .topology import TopologyError, read


def main(arguments: list[str]) -> int:
    """A whole mesh on this machine: up, status, exec, logs, down."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = RunDir.of(parsed.name)
        result: int = parsed.work(run, parsed)
    except (MeshError, TopologyError) as error:
        print(f"nsm mesh: {error}", file=sys.stderr)
        return 1
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nsm mesh", description=main.__doc__)
    parser.add_argument("--name", default="default", help="which mesh; several can live side by side")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "up", _up, "start a mesh; returns when every client has its wires").add_argument(
        "-f", "--file", help="the topology; without one: one node, one endpoint, one client"
    )
    status = _command(commands, "status", _status, "show components and wires")
    status.add_argument("--json", action="store_true", help="for programs")
    run = _command(commands, "exec", _exec, "run a command in a workload: exec WORKLOAD -- CMD...")
    run.add_argument("workload")
    run.add_argument("argv", nargs="+", metavar="CMD")
    _command(commands, "logs", _logs, "show what components logged").add_argument("component", nargs="?")
    _command(commands, "down", _down, "take the mesh down")
    return parser


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
    from .launch import up  # noqa: PLC0415 - only this command starts a supervisor

    up(run, read(parsed.file), show)
    print(f"mesh {run.name!r} is up")
    return 0


def _down(run: RunDir, _parsed: argparse.Namespace) -> int:
    from .launch import down  # noqa: PLC0415

    down(run)
    print(f"mesh {run.name!r} is down")
    return 0


def _status(run: RunDir, parsed: argparse.Namespace) -> int:
    from .supervisor import ask  # noqa: PLC0415

    if not run.is_up():
        raise MeshCommandError(f"mesh {run.name!r} is not up")
    status = ask(str(run.control), {"command": "status"})
    if parsed.json:
        print(json.dumps(status, indent=2))
        return 0
    for component in status["components"]:
        problem = f"  {component['last_warning']}" if component["state"] != "ready" else ""
        print(f"{component['name']:<24} {component['command']:<18} {component['state']:<16}{component['pid']}{problem}")
    for wire in status["wires"]:
        print()
        print(f"{wire['client']} {wire['interface']} → {wire['service']} ({wire['endpoint']}): {wire['state']}")
        print(f"  {wire['mechanism']}  {', '.join(wire['src_ips'])} → {', '.join(wire['dst_ips'])}")
        print(f"  {' → '.join(wire['path'])}")
    return 0


def _exec(run: RunDir, parsed: argparse.Namespace) -> int:
    from .launch import run_in_workload  # noqa: PLC0415

    return run_in_workload(run, parsed.workload, parsed.argv)


def _logs(run: RunDir, parsed: argparse.Namespace) -> int:
    folder = run.path / "log"
    if not folder.is_dir():
        raise MeshCommandError(f"mesh {run.name!r} is not up, and keeps no logs")
    names = sorted(os.listdir(folder))
    if parsed.component and parsed.component not in names:
        raise MeshCommandError(f"there is no log of {parsed.component!r}; there are {', '.join(names)}")
    lines = []
    for name in [parsed.component] if parsed.component else names:
        lines += [_readable(name, line) for line in (folder / name).read_text().splitlines()]
    for _, line in sorted(lines):
        print(line)
    return 0


def _readable(component: str, line: str) -> tuple[str, str]:
    """A log line with the time to sort it by."""
    try:
        said = json.loads(line)
    except ValueError:
        return "", f"{component}: {line}"
    time, event, level = said.pop("timestamp", ""), said.pop("event", ""), said.pop("level", "")
    said.pop("component", None)
    values = " ".join(f"{key}={value}" for key, value in said.items())
    return time, f"{time[11:23]} {level:<7} {component:<20} {event}  {values}"
