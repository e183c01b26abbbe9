"""The output of `nsm mesh status`: nodes, links, components, and wires, with the cause if one is not up."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsm.chains.model.domains import split

from .model import Topology
from .plan import VIEW
from .process import Process
from .routing import crossings
from .wires import Known, wires_of


@dataclass(frozen=True)
class View:
    """The state of a mesh: its file, its processes, and what managers and forwarders report, by node."""

    name: str
    topology: Topology
    processes: Sequence[Process]
    managers: Mapping[str, Known]
    forwarders: Mapping[str, Known]
    cut: Collection[tuple[str, str]]
    """Network and node of each disconnected port."""
    interfaces: Mapping[tuple[str, str], str]
    own_view: Mapping[str, Any] | None = None
    """The process that watches the mesh, once it was started: it is no part of any node."""


def describe(view: View) -> dict[str, Any]:
    """The status as plain data."""
    return {
        "mesh": view.name,
        "nodes": [_node(view.topology, node.name) for node in view.topology.nodes],
        "links": _links(view),
        "uplinks": [{"name": each.name, "mtu": each.mtu, "nodes": list(each.nodes)} for each in view.topology.uplinks],
        "services": [{"name": each.name, "payload": each.payload} for each in view.topology.services],
        "components": [_component(process) for process in view.processes if process.what.command != VIEW],
        "wires": _wires(view),
        **({"view": dict(view.own_view)} if view.own_view is not None else {}),
    }


def _node(topology: Topology, name: str) -> dict[str, Any]:
    domain = {"domain": topology.domain_of(name).name} if topology.domains else {}
    return {"name": name, "address": topology.address_of(name), **domain}


def _links(view: View) -> list[dict[str, Any]]:
    return [
        {
            "network": str(link.network),
            "mtu": link.mtu,
            "nodes": [
                {
                    "name": node,
                    "address": str(link.interface_of(node).ip),
                    "interface": view.interfaces.get((str(link.network), node), ""),
                    "state": "cut" if (str(link.network), node) in view.cut else "up",
                }
                for node in link.nodes
            ],
        }
        for link in view.topology.links
    ]


def _component(process: Process) -> dict[str, Any]:
    return {
        "name": process.name,
        "command": process.what.command,
        "node": process.what.node,
        "workload": process.what.is_workload,
        "pid": process.pid,
        "state": process.state,
        "last_warning": process.last,
    }


def _wires(view: View) -> list[dict[str, Any]]:
    tunnels = {key: tunnel for known in view.managers.values() for key, tunnel in known.tunnels.items()}
    found: list[dict[str, Any]] = []
    for node in view.topology.managed:
        clients = [client for client in view.topology.clients if client.node == node.name]
        for key, wire in wires_of(clients, view.managers[node.name], view.forwarders[node.name]).items():
            crossing = {"tunnel": tunnels[key]} if key in tunnels else {}
            found.append(_with_cause({**wire, **crossing}, view))
    return found


def _by_name(view: View) -> dict[str, Process]:
    """The processes, also by the names that endpoints of other domains have in paths."""
    named = {process.what.environment.get("NSM_NAME", process.name): process for process in view.processes}
    return named | {process.name: process for process in view.processes}


def _with_cause(wire: dict[str, Any], view: View) -> dict[str, Any]:
    """Add the cause to a wire that is not up; a wire between disconnected nodes is not up.

    The client has its name in the file: an endpoint of another domain may be one.
    """
    client = _by_name(view).get(wire["client"])
    wire = {**wire, "client": client.name if client is not None else wire["client"]}
    if (ended := _ended(wire, view)) is not None:
        return {**wire, "reason": ended}
    if (between := _cut_between(wire, view)) is not None:
        return {**wire, "state": "DOWN", "reason": between}
    if wire["state"] == "DOWN" and client is not None and client.last:
        return {**wire, "reason": client.last}
    return wire


def _ended(wire: Mapping[str, Any], view: View) -> str | None:
    """Which component on the path of a wire has ended; without its client, a wire stays up until its tokens expire."""
    ended = {name: process.state for name, process in _by_name(view).items() if process.status is not None}
    if wire["client"] in ended:
        return f"the client {ended[wire['client']]}"
    on_path = [name for name in wire["path"] if name in ended] if wire["state"] == "DOWN" else []
    return f"{on_path[0]} {ended[on_path[0]]}" if on_path else None


def _cut_between(wire: Mapping[str, Any], view: View) -> str | None:
    """Which cut disconnects two nodes of the path, in either direction."""
    pairs = [*itertools.pairwise(_nodes_of(wire, view))] if view.cut else []
    if not wire["path"] and view.cut:
        pairs = _ways(wire, view)
    for one, other in pairs:
        ways = [*crossings(view.topology.links, one, other), *crossings(view.topology.links, other, one)]
        for link, before, behind in ways:
            for node in (before, behind):
                if (str(link.network), node) in view.cut:
                    return f"{one} and {other} cannot reach each other: {node} is cut from link {link.network}"
    return None


def _ways(wire: Mapping[str, Any], view: View) -> list[tuple[str, str]]:
    """The node of a wire that has no path, with that of each endpoint that it could have."""
    at = {process.name: process.what.node for process in view.processes}
    names = {wire["service"], split(wire["service"])[0]}
    nodes = [each.node for each in view.topology.endpoints if not names.isdisjoint(each.services)]
    return [(at[wire["client"]], node) for node in dict.fromkeys(nodes) if wire["client"] in at]


def _nodes_of(wire: Mapping[str, Any], view: View) -> list[str]:
    """The nodes on the path of a wire, starting with the client's."""
    at = {name: process.what.node for name, process in _by_name(view).items()}
    return list(dict.fromkeys(at[name] for name in [wire["client"], *wire["path"]] if name in at))
