"""The wires of a mesh: what its managers know of them, beside what its file asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any, cast

from nsm.apis import jsonform
from nsm.apis.connection import Connection, MonitorScopeSelector, State
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.core import MeshError
from nsm.chains.model.nsurl import parse_nsurl
from nsm.chains.transport import Pool, RemoteMonitor

from .topology import ClientSpec

ANSWER_TIMEOUT = 5.0


async def wires_of(pool: Pool, manager: str, clients: Iterable[ClientSpec]) -> list[dict[str, Any]]:
    """The wires that begin at clients of the manager at the URL `manager`, by the order of the file.

    A wire that the file asks for is in the list also when it is not there: its `state` is ``DOWN``, or ``UNKNOWN``
    when the manager does not answer, and `reason` says why.
    """
    wanted = {wire_id: wire for client in clients for wire_id, wire in wanted_wires(client).items()}
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            found = await _known_to(pool, manager)
    except TimeoutError:
        return [{**wire, "state": "UNKNOWN", "reason": f"{manager} does not answer"} for wire in wanted.values()]
    except MeshError as error:
        return [{**wire, "state": "UNKNOWN", "reason": str(error)} for wire in wanted.values()]
    return list({**wanted, **found}.values())


def wanted_wires(client: ClientSpec) -> Mapping[str, dict[str, Any]]:
    """What a client asks for, by the id that its connection will have."""
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


async def _known_to(pool: Pool, manager: str) -> dict[str, dict[str, Any]]:
    """The first event of a manager's monitor has all its connections; those at index 1 begin at its clients."""
    events = RemoteMonitor(pool, manager).monitor(MonitorScopeSelector())
    async with aclosing(cast(Any, events)) as stream:
        async for event in stream:
            local = [c for c in event.connections.values() if c.path is not None and c.path.index == 1]
            return {connection.path.path_segments[0].id: _wire(connection) for connection in local}
    return {}


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
    }
