"""`nsm attach` and `nsm detach`: wires for processes and containers that already run and know nothing of the mesh."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsm.chains.config import pairs
from nsm.chains.core import MeshError
from nsm.chains.terminal import escaped

from .command import OK, Command, OperatorError, UsageError, parser_of, run
from .errors import DOWN
from .output import GREEN, YELLOW, Cell

if TYPE_CHECKING:
    from nsm.services.agent.attachments import Attachment
    from nsm.services.agent.places import Place

AGENT_FOLDER = "/var/lib/networkservicemesh/agent"
"""The agent of a host; those of local meshes are in the folders of these."""
_WORKLOAD_API = "unix:///run/spire/sockets/agent.sock"
_LOOK, _AGENT_STARTS = 0.02, 10.0
_SOON = 2.0
"""Seconds after which a person wants to know what an attachment waits for."""
_DETACH_TIMEOUT = 25.0


def main(arguments: list[str]) -> int:
    """Gives a running process, container or namespace wires, which an agent keeps and heals; lists what is attached."""
    parser = parser_of("attach", main.__doc__)
    parser.add_argument("urls", nargs="*", metavar="URL", help="kernel://SERVICE/INTERFACE?label=value")
    _add_place(parser)
    parser.add_argument(
        "--as", dest="called", metavar="NAME", help="its name, unique in the mesh [of the container or program]"
    )
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="a label of all its wires")
    parser.add_argument("--node", default="", metavar="NODE", help="at which node of a local mesh [the first]")
    parser.add_argument(
        "--workload-api",
        metavar="URL",
        help="where its client gets its identity, with --url [of `nsm node`, else SPIFFE_ENDPOINT_SOCKET]",
    )
    return run(parser, arguments, _attach)


def main_detach(arguments: list[str]) -> int:
    """Closes the wires of what was attached, and forgets it."""
    parser = parser_of("detach", main_detach.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `nsm attach` lists it")
    _add_place(parser)
    parser.add_argument("--all", action="store_true", help="everything that is attached")
    return run(parser, arguments, _detach)


def _add_place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument_group("what").add_mutually_exclusive_group()
    place.add_argument("--pid", type=_pid, metavar="PID", help="a process")
    place.add_argument("--container", metavar="NAME", help="a container of docker, podman or containerd, by name or id")
    place.add_argument("--netns", metavar="PATH", help="a network namespace, such as /run/netns/blue")
    parser.add_argument("--runtime", default="", choices=["docker", "podman", "containerd"], help="of which runtime")
    parser.add_argument(
        "--agent",
        default=AGENT_FOLDER,
        metavar="FOLDER",
        help=f"where the agent of this host is, with --url [{AGENT_FOLDER}]",
    )


@dataclass(frozen=True)
class _Seat:
    """Where an attachment is kept, and what its client needs."""

    agent: Path
    manager: str
    workload_api: str
    node: str
    leave: Callable[[], None]


def _attach(command: Command) -> int:
    chosen = command.arguments
    place = _place_of(chosen)
    if place is None and not chosen.urls:
        return _list(command)
    if place is None:
        raise UsageError("to what? write --pid PID, --container NAME or --netns PATH")
    attachment = _wanted(chosen, place, is_local=bool(command.target.mesh))
    began = time.monotonic()
    kept = {state["name"]: state for state in _states(_folder_of(command))}
    seat = _seat(command, attachment, kept)
    try:
        _attached(seat, attachment)
    except MeshError:
        if attachment.name not in kept:
            seat.leave()
        raise
    state = _until_up(seat, attachment, command.target.timeout)
    took = time.monotonic() - began
    if _is_host_s(state):
        note = f"{place} has no network namespace of its own: these are interfaces of this host"
        print(escaped(f"{attachment.name}: {note}"), file=sys.stderr)
    if command.output.is_json:
        command.output.json({**state, "wires": _wires_of(state), "seconds": round(took, 3)})
    else:
        _tell(command, state, took)
    return OK if state["state"] == "up" else DOWN


def _wanted(chosen: argparse.Namespace, place: Place, *, is_local: bool) -> Attachment:
    """What is to be attached, still without its manager. Raises `OperatorError`.

    Without a given name, that of a host's attachment ends with the host's: the names of clients are unique in a mesh.
    """
    from nsm.apis.mechanisms import KERNEL  # noqa: PLC0415 - the parser's faults need none of it
    from nsm.chains.model.nsurl import check_interfaces, check_mechanisms, parse_strict_nsurl  # noqa: PLC0415
    from nsm.services.agent.attachments import Attachment  # noqa: PLC0415
    from nsm.services.agent.containers import Runtimes  # noqa: PLC0415
    from nsm.services.agent.places import name_of  # noqa: PLC0415

    try:
        wishes = [parse_strict_nsurl(url) for url in chosen.urls]
        check_mechanisms(wishes, (KERNEL,))
        check_interfaces(wishes)
        labels = pairs(",".join(each.replace("=", ":", 1) for each in chosen.label))
    except ValueError as error:
        raise UsageError(str(error)) from None
    name = chosen.called or name_of(place, Runtimes.of_machine(), "" if is_local else f"-{socket.gethostname()}")
    found = {"name": name, "place": place.plain(), "urls": chosen.urls, "labels": labels}
    return Attachment.read({**found, "manager": "", "workload_api": ""})


def _place_of(chosen: argparse.Namespace) -> Place | None:
    from nsm.services.agent.containers import docker_host  # noqa: PLC0415 - the parser's faults need none of it
    from nsm.services.agent.places import CONTAINER, NETNS, Place, place_of_pid  # noqa: PLC0415

    if chosen.pid is not None:
        return place_of_pid(chosen.pid)
    if chosen.container is not None:
        return Place(CONTAINER, chosen.container, chosen.runtime, docker=docker_host())
    if chosen.netns is not None:
        return Place(NETNS, os.path.abspath(chosen.netns))
    return None


def _seat(command: Command, attachment: Attachment, kept: Mapping[str, Mapping[str, Any]]) -> _Seat:
    """Where to keep an attachment besides those that are `kept` already; the agent is started if it does not run."""
    from nsm.mesh.control import ask  # noqa: PLC0415 - as above
    from nsm.mesh.rundir import MeshCommandError, RunDir  # noqa: PLC0415
    from nsm.services.agent.attachments import ISSUER, Folder  # noqa: PLC0415

    target, chosen, name = command.target, command.arguments, attachment.name
    before = kept.get(name)
    if before is not None and chosen.node not in ("", before["node"]):
        raise UsageError(f"{name!r} is attached at {before['node']!r} already: detach it, or write another --as NAME")
    if target.view:
        raise UsageError("wires are attached at a node: leave out --view, or write --url MANAGER on that machine")
    if target.mesh:
        try:
            mesh = RunDir.of(target.mesh)
            told = ask(mesh, {"command": "attach", "name": name, "node": chosen.node, "kept": [*kept]})
        except MeshCommandError as error:
            raise OperatorError(str(error)) from None

        def leave() -> None:
            with suppress(MeshCommandError):
                ask(mesh, {"command": "detach", "name": name})

        return _Seat(Path(told["agent"]), told["manager"], told["workload_api"], told["node"], leave)
    agent = Path(chosen.agent)
    own = f"unix://{Folder(agent / name).identity}" if (agent / ISSUER).exists() else ""
    workload_api = chosen.workload_api or own or os.environ.get("SPIFFE_ENDPOINT_SOCKET", _WORKLOAD_API)
    _ensure_agent(agent)
    return _Seat(agent, target.manager, workload_api, chosen.node, lambda: None)


def _ensure_agent(folder: Path) -> None:
    """Start the agent of this host unless it runs; it goes on when this command has ended."""
    from nsm.services.agent.control import LIST, NoAgent, ask  # noqa: PLC0415

    end, started = time.monotonic() + _AGENT_STARTS, None
    while True:
        try:
            ask(folder, {"command": LIST})
        except NoAgent as error:
            if started is None:
                started = _started(folder)
            elif started.poll() is not None or time.monotonic() > end:
                raise OperatorError(f"the agent cannot be started: {_last_line(folder) or error}") from None
            time.sleep(_LOOK)
        else:
            return


def _started(folder: Path) -> subprocess.Popen[bytes]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(folder / "log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "nsm.chains", "agent"],
                env={**os.environ, "NSM_STATE_FOLDER": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise OperatorError(f"the agent cannot be started in {folder}: {error.strerror}; are you root?") from None


def _last_line(folder: Path) -> str:
    with suppress(OSError, IndexError):
        return (folder / "log").read_text(errors="replace").splitlines()[-1]
    return ""


def _attached(seat: _Seat, attachment: Attachment) -> None:
    from nsm.services.agent.control import ATTACH, ask  # noqa: PLC0415 - as above

    own = {"manager": seat.manager, "workload_api": seat.workload_api, "node": seat.node}
    ask(seat.agent, {"command": ATTACH, "attachment": {**attachment.plain(), **own}})


def _until_up(seat: _Seat, attachment: Attachment, timeout: float) -> dict[str, Any]:
    """The state when all wires are there, when it is gone, or after `timeout` seconds."""
    begin, told = time.monotonic(), ""
    end = begin + timeout if timeout else None
    while True:
        state = next((each for each in _states(seat.agent) if each["name"] == attachment.name), None)
        if state is None:
            raise OperatorError(f"{attachment.place} has ended, and its wires with it")
        if state["state"] == "up" and _has_interfaces(state):
            return state
        if time.monotonic() > begin + _SOON and state["why"] != told:
            told = state["why"]
            print(escaped(f"{attachment.name} waits: {told}"), file=sys.stderr, flush=True)
        if end is not None and time.monotonic() > end:
            return {**state, "state": "starting" if state["state"] == "up" else state["state"]}
        time.sleep(_LOOK)


def _states(agent: Path) -> list[dict[str, Any]]:
    """What is attached; if the agent does not run, what it will continue."""
    from nsm.services.agent.attachments import stored_in  # noqa: PLC0415 - as above
    from nsm.services.agent.control import LIST, NoAgent, ask  # noqa: PLC0415

    try:
        found: list[dict[str, Any]] = ask(agent, {"command": LIST})["attachments"]
    except NoAgent:
        idle = {"state": "waiting", "why": "the agent does not run", "pid": 0, "client": 0}
        return [{**each.plain(), **idle} for each in stored_in(agent)]
    return found


def _has_interfaces(state: dict[str, Any]) -> bool:
    """Whether all interfaces are there that were named: the client learns of new ones a moment later."""
    from nsm.apis.mechanisms import INTERFACE_NAME  # noqa: PLC0415 - as above
    from nsm.chains.model.nsurl import parse_nsurl  # noqa: PLC0415

    names = {parse_nsurl(url).mechanism.parameters.get(INTERFACE_NAME, "") for url in state["urls"]}
    return names - {""} <= {each["interface"] for each in _wires_of(state)}


def _is_host_s(state: Mapping[str, Any]) -> bool:
    """Whether what is attached shares the network namespace of this command."""
    with suppress(OSError):
        return os.path.samestat(os.stat(_network_of(state)), os.stat("/proc/self/ns/net"))
    return False


def _network_of(state: Mapping[str, Any]) -> str:
    place: dict[str, str] = state["place"]
    return place["value"] if place["kind"] == "netns" else f"/proc/{state['pid']}/ns/net"


def _wires_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The interfaces of wires in the namespace of what is attached, and their addresses."""
    import ipaddress  # noqa: PLC0415

    from nsm.chains.elements.rtnetlink import WIRES  # noqa: PLC0415
    from nsm.operate.probes.ends import links_in  # noqa: PLC0415

    try:
        network = os.open(_network_of(state), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        links = [each for each in links_in(network) if each.alias.startswith(WIRES)]
    finally:
        os.close(network)
    return [
        {
            "interface": link.name,
            "addresses": [
                str(found) for each in link.addresses if not (found := ipaddress.ip_address(each)).is_link_local
            ],
        }
        for link in links
    ]


def _tell(command: Command, state: dict[str, Any], took: float) -> None:
    name = state["name"]
    if state["state"] != "up":
        why = f": {state['why']}" if state["why"] else ""
        again = f"the agent goes on trying; `nsm detach {name}` gives up"
        command.output.parts([f"{name}: not up after {took:.1f} s", Cell(why, YELLOW), f"; {again}"])
        return
    wires = ", ".join(f"{each['interface']} {' '.join(each['addresses'])}".strip() for each in _wires_of(state))
    command.output.parts([f"{name}: ", Cell(wires or "up", GREEN), f" in {took:.2f} s"])


def _list(command: Command) -> int:
    found = _states(_folder_of(command))
    if command.output.is_json:
        command.output.json([{**state, "wires": _wires_of(state)} for state in found])
        return OK
    if not found:
        command.output.line("nothing is attached")
        return OK
    rows = [
        [*_row(state), Cell(state["state"], GREEN if state["state"] == "up" else YELLOW), state["why"]]
        for state in found
    ]
    command.output.table(["NAME", "WHAT", "NODE", "WIRES", "STATE", "WHY"], rows)
    return OK


def _row(state: dict[str, Any]) -> Iterator[str]:
    place = state["place"]
    yield state["name"]
    yield f"{place['kind']} {place['value']}"
    yield state["node"]
    yield ", ".join(f"{each['interface']} {' '.join(each['addresses'])}".strip() for each in _wires_of(state))


def _folder_of(command: Command) -> Path:
    from nsm.mesh.rundir import MeshCommandError, RunDir  # noqa: PLC0415 - as above

    if not command.target.mesh:
        return Path(command.arguments.agent)
    try:
        return RunDir.of(command.target.mesh).attachments
    except MeshCommandError as error:
        raise UsageError(str(error)) from None


def _detach(command: Command) -> int:
    from nsm.services.agent.control import DETACH, ask  # noqa: PLC0415 - as above

    agent = _folder_of(command)
    states = _states(agent)
    names = _names(command.arguments, states)
    for name in names:
        ask(agent, {"command": DETACH, "name": name})
    end = time.monotonic() + _DETACH_TIMEOUT
    while left := [each["name"] for each in _states(agent) if each["name"] in names]:
        if time.monotonic() > end:
            raise OperatorError(f"{', '.join(left)}: the wires are not closed yet")
        time.sleep(_LOOK)
    _leave_mesh(command, names)
    for name in names:
        command.output.json({"detached": name}) if command.output.is_json else command.output.line(
            f"{name} is detached"
        )
    return OK


def _names(chosen: argparse.Namespace, states: list[dict[str, Any]]) -> list[str]:
    known = [state["name"] for state in states]
    if chosen.all:
        return known
    place = _place_of(chosen)
    names = list(chosen.names)
    if place is not None:
        names += [
            state["name"]
            for state in states
            if (state["place"]["kind"], state["place"]["value"]) == (place.kind, place.value)
        ]
        if not names:
            raise UsageError(f"nothing is attached to {place}; there is {', '.join(known) or 'nothing'}")
    if not names:
        raise UsageError("which? write a NAME, --pid, --container, --netns or --all; `nsm attach` lists them")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"nothing is attached as {unknown[0]!r}; there is {', '.join(known) or 'nothing'}")
    return names


def _leave_mesh(command: Command, names: list[str]) -> None:
    from nsm.mesh.control import ask  # noqa: PLC0415 - as above
    from nsm.mesh.rundir import MeshCommandError, RunDir  # noqa: PLC0415

    if command.target.mesh:
        for name in names:
            with suppress(MeshCommandError):
                ask(RunDir.of(command.target.mesh), {"command": "detach", "name": name})


def _pid(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:10]) < 1 << 22:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a process id")
