"""The two answers of upstream's dashboard backend, so that its page can show a mesh of ours.

Format: networkservicemesh/cmd-dashboard-backend, `model.go`. Ids of interfaces and edges are built as there, except
that a wire is named by a hash of its own id and its client's. Kinds are those that the view knows, not guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from aiohttp import web

from nsm.view.model import Hop, Kind, Wire, WireState
from nsm.view.state import State

CLUSTER = "cluster-local"
_CONNECTION, _CROSS = "interfaceConnection", "interfaceCrossConnection"
_TYPES = {Kind.FORWARDER: "forwarder", Kind.ENDPOINT: "endpoint", Kind.MANAGER: "manager", Kind.PROXY: "manager"}


class Dashboard:
    """Answers from `state`; pages of `origin`, if there is one, may read them."""

    def __init__(self, state: State, origin: str = "") -> None:
        self._state = state
        self._headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {}

    def routes(self) -> list[web.RouteDef]:
        """Both of them."""
        return [web.get("/nodes", self._nodes), web.get("/edges", self._edges)]

    async def _nodes(self, _request: web.Request) -> web.Response:
        return web.json_response(graph(self._state.wires())[0], headers=self._headers)

    async def _edges(self, _request: web.Request) -> web.Response:
        return web.json_response(graph(self._state.wires())[1], headers=self._headers)


def graph(wires: Iterable[Wire]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The nodes and the edges of the graph of these wires."""
    drawing = _Drawing()
    for wire in wires:
        drawing.add(wire)
    drawing.join_inside_endpoints()
    return [{"data": each} for each in drawing.nodes.values()], [{"data": each} for each in drawing.edges]


class _Drawing:
    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.edges: list[dict[str, Any]] = []
        self._inside: dict[str, list[str]] = {}
        """The interfaces of each endpoint."""

    def add(self, wire: Wire) -> None:
        """Draw one wire."""
        self._node(CLUSTER, "cluster", CLUSTER)
        self._node(wire.service, "service", wire.service, CLUSTER)
        before = ""
        for hop in wire.path:
            kind = _TYPES.get(hop.kind, "client")
            told = {"networkService": wire.service} if kind == "endpoint" else None
            self._node(hop.name, kind, hop.name, CLUSTER, told)
            before = self._through(wire, hop, kind, before)

    def join_inside_endpoints(self) -> None:
        """Packets may pass between the interfaces of an endpoint that has several, as in a chain."""
        for interfaces in self._inside.values():
            for one, other in combinations(interfaces, 2):
                self._edge(one, other, _CROSS, healthy=True)

    def _through(self, wire: Wire, hop: Hop, kind: str, before: str) -> str:
        """Draw the interfaces of a hop, connected with the one before; returns the last one."""
        healthy = wire.state is WireState.UP
        for side in {"client": "c", "endpoint": "s", "forwarder": "sc"}.get(kind, ""):
            interface = f"int-{side}--{_key(wire)}--{hop.name}"
            is_known = kind != "forwarder" or side == "c"
            self._node(interface, "interface", _label(hop) if is_known else "unknown", hop.name)
            if kind == "endpoint":
                self._inside.setdefault(hop.name, []).append(interface)
            if before:
                is_inside = kind == "forwarder" and side == "c"
                self._edge(before, interface, _CROSS if is_inside else _CONNECTION, healthy=healthy)
            before = interface
        return before

    def _node(self, key: str, kind: str, label: str, parent: str = "", custom: dict[str, Any] | None = None) -> None:
        if key not in self.nodes:
            node: dict[str, Any] = {"id": key, "type": kind, "label": label}
            if parent:
                node["parent"] = parent
            if custom:
                node["customData"] = custom
            self.nodes[key] = node

    def _edge(self, source: str, target: str, kind: str, *, healthy: bool) -> None:
        edge: dict[str, Any] = {"id": f"conn--{source}--{target}", "type": kind, "source": source, "target": target}
        self.edges.append({**edge, "healthy": True} if healthy else edge)


def _key(wire: Wire) -> str:
    return hashlib.sha256(f"{wire.client}\n{wire.id}".encode()).hexdigest()


def _label(hop: Hop) -> str:
    if hop.mechanism and hop.interface:
        return f"{hop.mechanism}/{hop.interface}"
    return hop.interface or hop.mechanism or "unknown"
