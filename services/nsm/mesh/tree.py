"""A mesh's status as a tree for people: nodes, their components and workloads, the wires of each client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any

from nsm.chains.terminal import escaped

Status = Mapping[str, Any]
Row = tuple[str, ...]


def tree(status: Status) -> list[str]:
    """The lines of the tree, in columns; texts from the mesh are escaped."""
    rows: list[tuple[str, Row]] = []
    for node in status["nodes"]:
        rows += [(mark, tuple(map(escaped, row))) for mark, row in _node(status, node)]
    widths = [max(map(len, column)) for column in zip(*(row for mark, row in rows if mark), strict=True)]
    before = map(escaped, [*_links(status), *_uplinks(status)])
    return [*before, *(_line(mark, row, widths) for mark, row in rows), *map(escaped, _view(status))]


def _line(mark: str, row: Row, widths: Iterable[int]) -> str:
    """A line with columns as wide as their widest entry; without a mark, only the first column."""
    return "  ".join(map(str.ljust, row, widths)).rstrip() if mark else row[0]


def _links(status: Status) -> Iterator[str]:
    for link in status["links"]:
        ends = ", ".join(_end(node) for node in link["nodes"])
        yield f"link {link['network']}  mtu {link['mtu']}  {ends}"
    if status["links"]:
        yield ""


def _uplinks(status: Status) -> Iterator[str]:
    uplinks = status.get("uplinks", [])
    for uplink in uplinks:
        yield f"uplink {uplink['name']}  mtu {uplink['mtu']}  {', '.join(uplink['nodes'])}"
    if uplinks:
        yield ""


def _view(status: Status) -> Iterator[str]:
    if (view := status.get("view")) is not None:
        yield ""
        why = f" {view['state']}: {view['last_warning']}".rstrip(": ")
        ended = "" if view["state"] in ("ready", "starting") else why
        yield f"view {view['url'] or 'has no address yet'}{ended}"


def _end(node: Status) -> str:
    cut = "" if node["state"] == "up" else " CUT"
    return f"{node['name']} {node['address']} {node['interface']}".rstrip() + cut


def _node(status: Status, node: Status) -> Iterator[tuple[str, Row]]:
    yield "", (" ".join(filter(None, (node["name"], node["address"], node.get("domain")))),)
    here = [component for component in status["components"] if component["node"] == node["name"]]
    rows = [(component["name"], partial(_component, component)) for component in here]
    rows += [(client, partial(_stranger, client)) for client in _strangers(status, node["name"])]
    for number, (name, row) in enumerate(rows, 1):
        is_last = number == len(rows)
        yield "component", row("└─ " if is_last else "├─ ")
        wires = [wire for wire in status["wires"] if wire["client"] == name]
        for wire in wires:
            stem = ("   " if is_last else "│  ") + ("└─ " if wire is wires[-1] else "├─ ")
            yield "wire", _wire(wire, stem)


def _strangers(status: Status, node: str) -> list[str]:
    """Clients that have wires at a node's manager but are not in the file: they were started by hand."""
    at = {component["name"]: component["node"] for component in status["components"]}
    wires = [wire for wire in status["wires"] if wire["client"] not in at]
    return list(
        dict.fromkeys(
            wire["client"] for wire in wires if next((at[name] for name in wire["path"] if name in at), "") == node
        )
    )


def _stranger(client: str, stem: str) -> Row:
    return f"{stem}{client}", "-", "-", "-", "not in the file"


def _component(component: Status, stem: str) -> Row:
    problem = "" if component["state"] == "ready" else component["last_warning"]
    pid = f"pid {component['pid']}" if component["pid"] else "-"
    return f"{stem}{component['name']}", component["command"], component["state"], pid, problem


def _wire(wire: Status, stem: str) -> Row:
    ends = zip_longest(wire["src_ips"], wire["dst_ips"])
    addresses = " ".join(" → ".join(filter(None, addresses)) for addresses in ends)
    what = f"{wire['service']} at {wire['endpoint']}" if wire["endpoint"] else wire["service"]
    path = " → ".join(wire["path"])
    told = (
        [what, addresses, path]
        if wire["state"] == "UP"
        else [what, f"because {wire['reason']}" if "reason" in wire else ""]
    )
    return f"{stem}{wire['interface'] or '?'}", _mechanism(wire), wire["state"], "", "  ".join(filter(None, told))


def _mechanism(wire: Status) -> str:
    tunnel = wire.get("tunnel")
    return f"{wire['mechanism']} over {tunnel['mechanism']}" if tunnel else str(wire["mechanism"])
