"""The wires of a mesh: those that its file requests, with what its managers report about them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsm.apis import jsonform
from nsm.apis.connection import Connection, MonitorScopeSelector, State
from nsm.apis.mechanisms import INTERFACE_NAME, VLAN
from nsm.chains.composed import monitors
from nsm.chains.core import MeshError
from nsm.chains.model.nsurl import parse_nsurl
from nsm.chains.transport import Pool

from .model import ClientSpec

ANSWER_TIMEOUT = 5.0
_REMOTE = "REMOTE"


@dataclass
class Known:
    """The connections of one component, by their ids at the client, and how they continue."""

    wires: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Connections of clients on this component's node."""
    tunnels: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Connections from other nodes, with the mechanism between the nodes."""
    fault: str = ""


def together(several: Sequence[Known]) -> Known:
    """The connections of several components of a node."""
    whole = Known(fault=next((each.fault for each in several if each.fault), ""))
    for each in several:
        whole.wires |= each.wires
        whole.tunnels |= each.tunnels
    return whole


async def known_to(pool: Pool, target: str, index: int) -> Known:
    """The connections of the component at `target`; those with path index `index` there are its clients'."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await _all_of_it(pool, target, index)
    except TimeoutError:
        return Known(fault=f"{target} does not respond")
    except MeshError as error:
        return Known(fault=str(error))


def wires_of(clients: Iterable[ClientSpec], manager: Known, forwarder: Known) -> dict[str, dict[str, Any]]:
    """The wires of one node's clients by id, in the order of the file; then others that its manager knows.

    A requested wire is listed even if it does not exist: its `state` is ``DOWN``, or ``UNKNOWN`` if the manager does
    not respond, and `reason` says why. A restarted manager learns about a wire when its client refreshes it; until
    then, the forwarder's state counts.
    """
    wanted = {wire_id: wire for client in clients for wire_id, wire in wanted_wires(client).items()}
    if manager.fault:
        return {key: {**wire, "state": "UNKNOWN", "reason": manager.fault} for key, wire in wanted.items()}
    also = {key: wire for key, wire in forwarder.wires.items() if key in wanted}
    return {**wanted, **also, **manager.wires}


def wanted_wires(client: ClientSpec) -> Mapping[str, dict[str, Any]]:
    """The wires that a client requests, by the ids that their connections will have."""
    return {f"{client.name}-{number}": _wanted(client.name, url) for number, url in enumerate(client.wires)}


def _wanted(client: str, url: str) -> dict[str, Any]:
    wish = parse_nsurl(url)
    return {
        "client": client,
        "service": wish.network_service,
        "interface": wish.mechanism.parameters.get(INTERFACE_NAME, ""),
        "mechanism": wish.mechanism.type,
        "endpoint": "",
        "src_ips": [],
        "dst_ips": [],
        "path": [],
        "state": "DOWN",
    }


async def _all_of_it(pool: Pool, target: str, index: int) -> Known:
    known = Known()
    for connection in await monitors(pool).present(target, MonitorScopeSelector()):
        _sort_in(known, connection, index)
    return known


def _sort_in(known: Known, connection: Connection, index: int) -> None:
    path, mechanism = connection.path, connection.mechanism
    if path is None or not path.path_segments:
        return
    client_id = path.path_segments[0].id
    if path.index == index:
        known.wires[client_id] = _wire(connection)
    elif mechanism is not None and mechanism.cls == _REMOTE:
        known.tunnels[client_id] = {"mechanism": mechanism.type, "parameters": dict(mechanism.parameters)}


def _wire(connection: Connection) -> dict[str, Any]:
    plain = jsonform.to_json(connection)
    ip = plain.get("context", {}).get("ip_context", {})
    segments = plain["path"]["path_segments"]
    mechanism = plain.get("mechanism", {})
    return {
        "client": segments[0]["name"],
        "service": connection.network_service,
        "interface": mechanism.get("parameters", {}).get(INTERFACE_NAME, ""),
        "mechanism": mechanism.get("type", ""),
        "endpoint": connection.network_service_endpoint_name,
        "src_ips": ip.get("src_ip_addrs", []),
        "dst_ips": ip.get("dst_ip_addrs", []),
        "path": [segment["name"] for segment in segments],
        "state": State(connection.state).name,
        **_breakout(segments),
    }


def _breakout(segments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a wire leaves its node for a network outside the mesh, as reported by the node's forwarder."""
    for segment in segments:
        kind, _, interface = segment.get("metrics", {}).get("client_interface", "").partition("/")
        if kind == VLAN:
            return {"tunnel": {"mechanism": VLAN, "parameters": {"interface": interface}}}
    return {}
