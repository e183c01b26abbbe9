"""`nsm mesh`: a whole mesh on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsm.chains.importing import without_garbage_collection
from nsm.chains.terminal import escaped, escaped_lines
from nsm.chains.tools.arguments import Parser, count, seconds

from .control import ask
from .logfile import names_in
from .rundir import MeshCommandError, RunDir

if TYPE_CHECKING:
    from .model import Topology

_CANNOT_RUN = 127
"""The exit code of a shell for an unknown command, too."""
_WATCH_INTERVAL = 1.0
"""Seconds between two looks of `status --watch`."""


def main(arguments: list[str]) -> int:
    """A whole mesh on this machine: up, status, ls, exec, logs, kill, start, cut, mend, down."""
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
        print(escaped_lines(f"nsm mesh: {error}"), file=sys.stderr)
        return _CANNOT_RUN if parsed.work is _exec else 1
    return result


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """The arguments before the first ``--``, whether there is one, and the arguments after it, which are not parsed."""
    if "--" not in arguments:
        return arguments, False, []
    place = arguments.index("--")
    return arguments[:place], True, arguments[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nsm mesh", description=main.__doc__)
    parser.add_argument("--name", default="default", help="the name of the mesh; several can run at the same time")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = _command(commands, "up", _up, "start or change a mesh; returns when every client has its wires")
    up.add_argument(
        "-f", "--file", help="the topology; default: the running one, else one node with an endpoint and a client"
    )
    up.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="SECONDS", help="give up after that long [120]; 0: never"
    )
    up.add_argument("--keep", action="store_true", help="if it fails, leave what runs, to look into it")
    up.add_argument("--dry-run", action="store_true", help="only show what would be started, restarted and removed")
    up.add_argument("--json", action="store_true", help="with --dry-run: machine-readable")
    status = _command(commands, "status", _status, "show nodes, their components and workloads, and wires")
    status.add_argument("--watch", action="store_true", help="show it again whenever it changes")
    status.add_argument("--json", action="store_true", help="machine-readable")
    _command(commands, "ls", _ls, "list the meshes of this user").add_argument(
        "--json", action="store_true", help="machine-readable"
    )
    run = _command(commands, "exec", _exec, "run a command in a workload or a node: exec WORKLOAD|NODE -- CMD...")
    run.usage = "nsm mesh exec [-h] [--name NAME] WORKLOAD|NODE -- CMD..."
    run.add_argument("workload", metavar="WORKLOAD|NODE", help="an endpoint, a client or a node of the file")
    run.add_argument("behind", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    run.epilog = "CMD... is the command with its arguments; its exit code is that of exec. No shell reads it."
    logs = _command(commands, "logs", _logs, "show what components logged; a line that is repeated is shown once")
    logs.add_argument("components", nargs="*", metavar="COMPONENT|WORKLOAD", help="only these components; default: all")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is logged from now on")
    logs.add_argument("--since", type=_moment, metavar="TIME", help="from then on: 90s, 5m or 2h ago, or a time")
    logs.add_argument("--tail", type=count(0), metavar="LINES", help="only the last lines")
    kill = _command(commands, "kill", _kill, "send a signal to a component or workload; `start` and `up` bring it back")
    kill.add_argument("component", metavar="COMPONENT|WORKLOAD", help="its name, as `nsm mesh status` shows it")
    kill.add_argument(
        "--signal", type=_signal, default=signal.SIGKILL, metavar="NAME", help="KILL, TERM, STOP, .. [KILL]"
    )
    kill.add_argument(
        "--namespaces",
        action="store_true",
        help="end the workload's network namespace too, as when a pod is deleted",
    )
    _command(commands, "start", _start, "start components or workloads that have ended, and nothing else").add_argument(
        "components", nargs="+", metavar="COMPONENT|WORKLOAD", help="their names, as `nsm mesh status` shows them"
    )
    for name, about in (
        ("cut", "disconnect the first node from the link between two nodes"),
        ("mend", "reconnect both nodes to the link between them"),
    ):
        _command(commands, name, _cut_or_restore, about).add_argument(
            "nodes", nargs=2, metavar="NODE", help="a node's name"
        )
    _command(commands, "schema", _schema, "print the JSON schema of the topology file")
    _command(commands, "down", _down, "take the mesh down")
    return parser


def _signal(text: str) -> signal.Signals:
    try:
        return signal.Signals(int(text)) if text.isdigit() else signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"unknown signal {text!r}; expected KILL, TERM, STOP, CONT, ..") from None


def _moment(text: str) -> str:
    from .logs import moment  # noqa: PLC0415 - only for `logs`

    return moment(text)


def _command(commands: Any, name: str, work: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.add_argument("--name", default=argparse.SUPPRESS, help="which mesh")
    parser.set_defaults(work=work, command_name=name)
    return parser


def show(event: Mapping[str, Any]) -> None:
    """Print a line for an event while a mesh starts."""
    if (said := _said(event)) is not None:
        where = sys.stderr if event["event"] in {"no wire yet", "ended"} else sys.stdout
        print(escaped(f"  {event.get('component', ''):<24} {said}"), file=where)
    sys.stdout.flush()


def _said(event: Mapping[str, Any]) -> str | None:
    match event["event"]:
        case "started":
            return f"ready in {event['ms']} ms"
        case "wire up":
            addresses = ", ".join(event.get("addresses") or [])
            interface = event.get("interface") or "wire"  # a memif has none
            return f"{interface} to {event['endpoint']}: {addresses} in {event['ms']} ms"
        case "no wire yet" | "ended":
            return f"{event['event']}: {event.get('error') or event.get('reason')}"
        case "taken out":
            return "removed"
    return None


def _up(run: RunDir, parsed: argparse.Namespace) -> int:
    with without_garbage_collection():  # only this command needs a supervisor's modules
        from .launch import put_off_interruptions, up  # noqa: PLC0415
        from .topology import TopologyError, read  # noqa: PLC0415

    try:
        topology = read(parsed.file) if parsed.file is not None else None
    except TopologyError as error:
        raise MeshCommandError(str(error)) from None
    if parsed.dry_run:
        return _preview(run, topology, is_json=parsed.json)
    put_off_interruptions()  # exit code 0 means that the mesh is up, any other that it is not
    up(run, topology, show, timeout=parsed.timeout or None, keep=parsed.keep)
    print(f"mesh {run.name!r} is up", flush=True)
    return 0


def _preview(run: RunDir, topology: Topology | None, *, is_json: bool) -> int:
    from .preview import KEEP, preview  # noqa: PLC0415 - as above

    found = preview(run, topology)
    if is_json:
        print(json.dumps(found, indent=2))
        return 0
    for each in found:
        print(escaped(f"  {each['step']:<10} {each['component']:<24} {each['command']:<16} {each['node']}".rstrip()))
    changes = sum(each["step"] != KEEP for each in found)
    print(f"{changes} of {len(found)} components would be started or removed; nothing was changed")
    return 0


def _down(run: RunDir, _parsed: argparse.Namespace) -> int:
    from .enter import down  # noqa: PLC0415 - as above

    down(run)
    print(f"mesh {run.name!r} is down")
    return 0


def _status(run: RunDir, parsed: argparse.Namespace) -> int:
    from .tree import tree  # noqa: PLC0415 - as above

    status = ask(run, {"command": "status"})
    if not parsed.watch:
        print(json.dumps(status, indent=2) if parsed.json else "\n".join(tree(status)))
        return 0
    clear = "\033[H\033[2J" if sys.stdout.isatty() else ""
    shown = ""
    with contextlib.suppress(KeyboardInterrupt):
        while True:  # ends when the mesh is taken down: `ask` raises
            text = json.dumps(status) if parsed.json else "\n".join(tree(status))
            if text != shown:
                print(text if parsed.json else f"{clear}{text}\n", flush=True)
                shown = text
            time.sleep(_WATCH_INTERVAL)
            status = ask(run, {"command": "status"})
    return 0


def _ls(_run: RunDir, parsed: argparse.Namespace) -> int:
    from .listing import meshes, table  # noqa: PLC0415 - as above

    found = meshes()
    if parsed.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("there is no local mesh; `nsm mesh up` starts one")
        return 0
    rows = [tuple(map(escaped, row)) for row in table(found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def _kill(run: RunDir, parsed: argparse.Namespace) -> int:
    request = {"command": "kill", "component": parsed.component, "signal": int(parsed.signal)}
    if parsed.namespaces and parsed.signal == signal.SIGSTOP:
        raise MeshCommandError("--namespaces goes with a signal that ends the workload")
    reply = ask(run, {**request, "namespaces": parsed.namespaces})
    print(f"{parsed.component} {'has ended' if reply['ended'] else f'got {parsed.signal.name}'}")
    return 0


def _start(run: RunDir, parsed: argparse.Namespace) -> int:
    ask(run, {"command": "start", "components": parsed.components})
    print(f"{', '.join(parsed.components)} started")
    return 0


def _cut_or_restore(run: RunDir, parsed: argparse.Namespace) -> int:
    reply = ask(run, {"command": parsed.command_name, "nodes": parsed.nodes})
    one, other = parsed.nodes
    done = f"{one} is cut from" if parsed.command_name == "cut" else f"{one} and {other} are reconnected at"
    print(f"{done} link {', '.join(reply['links'])}")
    return 0


def _schema(_run: RunDir, _parsed: argparse.Namespace) -> int:
    from .topology import schema  # noqa: PLC0415 - as above

    print(schema(), end="")
    return 0


def _exec(run: RunDir, parsed: argparse.Namespace) -> int:
    from .enter import become_command  # noqa: PLC0415 - as above

    if parsed.behind:
        command = " ".join(parsed.behind)
        raise MeshCommandError(f"write the command after --: nsm mesh exec {parsed.workload} -- {command}")
    if not parsed.command:
        raise MeshCommandError(f"which command? write it after --: nsm mesh exec {parsed.workload} -- CMD...")
    become_command(run, parsed.workload, parsed.command)
    return _CANNOT_RUN


def _logs(run: RunDir, parsed: argparse.Namespace) -> int:
    from .logs import follow, lines  # noqa: PLC0415 - as above

    folder = run.path / "log"
    if not folder.is_dir():
        folder = run.kept_logs
        if not folder.is_dir():
            raise MeshCommandError(run.absence())
        print(f"mesh {run.name!r} is not up: it failed; these are its logs, from {folder}", file=sys.stderr)
    names = names_in(folder)
    if unknown := [name for name in parsed.components if name not in names]:
        raise MeshCommandError(f"there is no log of {unknown[0]!r}; there are {', '.join(names)}")
    if parsed.follow and folder != run.kept_logs:
        with contextlib.suppress(KeyboardInterrupt):
            for line in follow(folder, parsed.components, since=parsed.since or "", tail=parsed.tail):
                print(escaped(line), flush=True)
        return 0
    for line in lines(folder, parsed.components or names, since=parsed.since or "", tail=parsed.tail):
        print(escaped(line))
    return 0
