"""Finds the wire that an operator names, and opens the namespaces in which its ends are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from nsm.apis.mechanisms import KERNEL
from nsm.chains.errors import MeshError
from nsm.mesh.control import ask
from nsm.mesh.rundir import MeshCommandError, RunDir
from nsm.operate.errors import DownError, OperatorError
from nsm.operate.naming import find_wire, name_of
from nsm.operate.target import Target
from nsm.view.model import Cause, Hop, Wire, WireState

from .ends import CLIENT, ENDPOINT, End, Spaces

_UNKNOWN = "UNKNOWN"
_WAYS = {"WIREGUARD": "WireGuard"}


@contextmanager
def both_ends(target: Target, word: str) -> Iterator[tuple[Wire, dict[str, End]]]:
    """The wire that `word` names, and its ends that are on this machine; at least one is. Raises `OperatorError`."""
    wire = _wire(target, word)
    with Spaces() as spaces:
        try:
            if target.mesh:
                _add_places(spaces, target.mesh, wire)
            else:
                spaces.add_all()
            spaces.enter_user()
            ends = spaces.find(wire)
        except OSError as error:
            raise OperatorError(f"cannot enter the namespaces of {name_of(wire)}: {error.strerror or error}") from None
        if not ends:
            raise _absent(wire, [CLIENT, ENDPOINT], target)
        yield wire, ends


def need(wire: Wire, ends: Mapping[str, End], sides: list[str], target: Target) -> None:
    """Raises `OperatorError` unless the ends of `sides` are on this machine."""
    missing = [side for side in sides if side not in ends]
    if missing:
        raise _absent(wire, missing, target)


def elsewhere(wire: Wire, side: str) -> str:
    """Where an end is that is not on this machine, for people."""
    workload, node = (wire.client, wire.node) if side == CLIENT else (wire.endpoint, wire.endpoint_node)
    named = f"the {side} {workload!r}" if workload else f"the {side}"
    return named + (f" (on node {node!r})" if node else "")


def _absent(wire: Wire, sides: list[str], target: Target) -> OperatorError:
    names = " and ".join(elsewhere(wire, side) for side in sides)
    if wire.state in (WireState.DOWN, WireState.PENDING):
        why = f": {wire.cause.sentence}" if wire.cause is not None and wire.cause.sentence else ""
        return DownError(f"{name_of(wire)} is {wire.state}{why}; there is no interface of it at {names}")
    mechanism = wire.path[0].mechanism if wire.path else ""
    if mechanism not in ("", KERNEL):
        return OperatorError(f"{name_of(wire)} is of mechanism {mechanism}: it has no interface of the kernel to probe")
    if target.mesh:
        return OperatorError(f"{names} of {name_of(wire)} has no network namespace with its interface in this mesh")
    return OperatorError(
        f"{names} of {name_of(wire)} is not in a network namespace of this machine that you may look into: run this "
        "command there, as root"
    )


def _wire(target: Target, word: str) -> Wire:
    """The wire as its source describes it; of a local mesh, as the supervisor does if its view does not know it."""
    import asyncio  # noqa: PLC0415 - the parser's faults need none of it

    mesh = target.run()
    if mesh is None:
        return find_wire(asyncio.run(_reported(target)), word)
    if mesh.socket_of("view").exists():
        with suppress(MeshError, OperatorError):
            return find_wire(asyncio.run(_reported(target)), word)
    return find_wire(_of_mesh(mesh), word)


async def _reported(target: Target) -> Sequence[Wire]:
    async with target.source() as source:
        return await source.wires()


def _of_mesh(mesh: RunDir) -> list[Wire]:
    """The wires that the supervisor of a local mesh reports."""
    try:
        status = ask(mesh, {"command": "status"})
    except MeshCommandError as error:
        raise OperatorError(str(error)) from None
    at = {part["name"]: part["node"] for part in status["components"]}
    return [_from_status(each, at) for each in status["wires"]]


def _from_status(wire: Mapping[str, Any], at: Mapping[str, str]) -> Wire:
    state, tunnel = wire["state"], wire.get("tunnel")
    return Wire(
        id="",
        client=wire["client"],
        service=wire["service"],
        state=WireState.UNHEARD if state == _UNKNOWN else WireState(state),
        interface=wire["interface"],
        endpoint=wire["endpoint"],
        node=at.get(wire["client"], ""),
        endpoint_node=at.get(_workload_of(wire["endpoint"]), ""),
        way=[_WAYS.get(tunnel["mechanism"], tunnel["mechanism"]) if tunnel else "veth"],
        client_addresses=wire["src_ips"],
        endpoint_addresses=wire["dst_ips"],
        cause=Cause(sentence=wire["reason"]) if wire.get("reason") else None,
        path=[Hop(name=name) for name in wire["path"]],
    )


def _workload_of(endpoint: str) -> str:
    return endpoint.partition("@")[0]


def _add_places(spaces: Spaces, mesh: str, wire: Wire) -> None:
    """The namespaces of the two workloads: the supervisor holds them, even if nothing runs there."""
    last = wire.path[-1].name if wire.path else ""
    for side, names in ((CLIENT, [wire.client]), (ENDPOINT, dict.fromkeys([wire.endpoint, last]))):
        for name in filter(None, map(_workload_of, names)):
            try:
                place = ask(RunDir.of(mesh), {"command": "place", "workload": name})
            except MeshCommandError:  # it is none of this mesh's: attached, or of another domain
                spaces.add_all()
                continue
            supervisor = f"/proc/{place['supervisor']}"
            spaces.add(side, f"{supervisor}/fd/{place['network']}")
            spaces.of_user(f"{supervisor}/ns/user")
