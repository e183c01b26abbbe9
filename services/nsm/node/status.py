"""`nsm node status`: which domain this host is a node of, until when, and which wires its manager knows."""

from __future__ import annotations

import json
import os
from typing import Any

from nsm.apis.connection import Connection, MonitorScopeSelector
from nsm.apis.connection import State as Liveness
from nsm.chains.composed import monitors
from nsm.chains.core import MeshError
from nsm.chains.terminal import escaped
from nsm.chains.tools.arguments import Parser
from nsm.chains.tools.session import run, session

from .state import State

STATE_FOLDER, MANAGER = "/var/lib/networkservicemesh/node", "unix:///var/lib/networkservicemesh/nsm.io.sock"


def status(arguments: list[str]) -> int:
    """Run `nsm node status`; returns 0 if this host has joined a domain and its manager answers, else 1."""
    parser = Parser(prog="nsm node status", description="Shows the domain that this host has joined, and its wires.")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parsed = parser.parse_args(arguments)
    folder = os.environ.get("NSM_STATE_FOLDER", STATE_FOLDER)
    listen_on = os.environ.get("NSM_LISTEN_ON", MANAGER).split(",")
    manager = next((each for each in listen_on if each.startswith("unix:")), MANAGER)

    async def work() -> int:
        found = await _found(folder, manager)
        print(json.dumps(found, indent=2) if parsed.json else "\n".join(_lines(found)))
        return 0 if found["domain"] and not found["fault"] else 1

    return run("node", work)


async def _found(folder: str, manager: str) -> dict[str, Any]:
    """What is known: the membership from the folder, the wires from the manager. Raises `InvalidRequest`."""
    membership = State(folder).load()
    found: dict[str, Any] = {"domain": "", "node": "", "spiffe_id": "", "expires": "", "wires": [], "fault": ""}
    if membership is None:
        return {**found, "fault": "this host has not joined a domain: `nsm node --join DOMAIN`"}
    svid = membership.svid
    found.update(domain=membership.trust_domain, node=membership.node, spiffe_id=svid.spiffe_id)
    found["expires"] = svid.leaf.not_valid_after_utc.isoformat()
    try:
        async with session() as pool:
            connections = await monitors(pool).present(manager, MonitorScopeSelector())
        found["wires"] = [_wire(each) for each in connections]
    except MeshError as error:
        found["fault"] = str(error)
    return found


def _wire(connection: Connection) -> dict[str, Any]:
    segments = connection.path.path_segments if connection.path is not None else []
    return {
        "id": connection.id,
        "service": connection.network_service,
        "endpoint": connection.network_service_endpoint_name,
        "path": [each.name for each in segments],
        "state": Liveness(connection.state).name,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [escaped(f"{found['spiffe_id']}, until {found['expires']}")] if found["domain"] else []
    for wire in found["wires"]:
        lines.append(escaped(f"{wire['state']:<6} {wire['service']:<24} {' → '.join(wire['path'])}"))
    if found["fault"]:
        lines.append(escaped(found["fault"]))
    return lines
