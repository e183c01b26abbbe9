"""`nsm mesh`: a whole mesh on this machine."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

from nsm.chains.importing import without_garbage_collection
from nsm.chains.terminal import escaped, escaped_lines
from nsm.chains.tools.arguments import Parser, seconds

from .control import ask
from .logfile import names_in, readable
from .rundir import MeshCommandError, RunDir

_CANNOT_RUN = 127
"""The exit code of a shell for an unknown command, too."""


def main(arguments: list[str]) -> int:
    """A whole mesh on this machine: up, status, exec, logs, kill, start, cut, mend, down."""
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
    status = _command(commands, "status", _status, "show nodes, their components and workloads, and wires")
    status.add_argument("--json", action="store_true", help="machine-readable")
    run = _command(commands, "exec", _exec, "run a command in a workload: exec WORKLOAD -- CMD...")
    run.usage = "nsm mesh exec [-h] [--name NAME] WORKLOAD -- CMD..."
    run.add_argument("workload", metavar="WORKLOAD", help="an endpoint or a client of the file")
    run.add_argument("behind", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    run.epilog = "CMD... is the command with its arguments; its exit code is that of exec. No shell reads it."
    _command(commands, "logs", _logs, "show what components logged").add_argument(
        "component", nargs="?", metavar="COMPONENT|WORKLOAD", help="only this component; default: all"
    )
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
    put_off_interruptions()  # exit code 0 means that the mesh is up, any other that it is not
    up(run, topology, show, timeout=parsed.timeout or None)
    print(f"mesh {run.name!r} is up", flush=True)
    return 0


def _down(run: RunDir, _parsed: argparse.Namespace) -> int:
    from .enter import down  # noqa: PLC0415 - as above

    down(run)
    print(f"mesh {run.name!r} is down")
    return 0


def _status(run: RunDir, parsed: argparse.Namespace) -> int:
    from .tree import tree  # noqa: PLC0415 - as above

    status = ask(run, {"command": "status"})
    print(json.dumps(status, indent=2) if parsed.json else "\n".join(tree(status)))
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
    folder = run.path / "log"
    if not folder.is_dir():
        folder = run.kept_logs
        if not folder.is_dir():
            raise MeshCommandError(run.absence())
        print(f"mesh {run.name!r} is not up: it failed; these are its logs", file=sys.stderr)
    names = names_in(folder)
    if parsed.component and parsed.component not in names:
        raise MeshCommandError(f"there is no log of {parsed.component!r}; there are {', '.join(names)}")
    for line in readable(folder, [parsed.component] if parsed.component else names):
        print(escaped(line))
    return 0
