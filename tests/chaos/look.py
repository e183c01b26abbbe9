"""What the kernel has of a mesh's wires, read from outside, and what is wrong about it."""

import asyncio
import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nsm.chains.core import MeshError
from nsm.mesh.namespaces import inhabitants

from .mesh import (
    CLIENTS,
    COMPONENTS,
    CONTROL,
    ENDPOINTS,
    FORWARDERS,
    MANAGERS,
    NODES,
    OTHER_NODE,
    OTHERS,
    PAYLOADS,
    REGISTERED,
    SPARE,
)

REGISTRY = {"registry-node-1"}
WIRES = sum(len(wires) for _, wires in CLIENTS.values())
PASSING = {*CONTROL, *OTHERS} - {*SPARE}
"""Components that have to do with all others, not only with a few."""
WATCHES = len(COMPONENTS)
"""Calls of the registry: each component may follow what the others depend on."""
FORMER_CHANNELS = len(COMPONENTS)
"""After identities were renewed, channels of before live beside the new ones until their last streams end: one a peer."""
ASKED_WITHIN = 10.0
SCRIPT = "ip -j -d addr; ip -j route show table all; ip -j rule"


@dataclass
class Link:
    """An interface that a forwarder made."""

    name: str
    index: int
    alias: str
    is_up: bool
    addresses: list
    hosts: set = field(default_factory=set)
    """Addresses behind it, by its host routes."""


@dataclass
class View:
    """All of them, by the name of the namespace; rules of policy routes by client; processes."""

    links: dict
    rules: dict
    programs: Counter
    pids: dict


@dataclass
class Inside:
    """What each component has open, the names of its tasks, and the records that each node's manager finds."""

    descriptors: dict
    tasks: dict
    records: dict


async def look(mesh):
    """The state of `mesh` at this moment."""
    status = await mesh.status()
    pids = {part["name"]: part["pid"] for part in status["components"] if part["state"] == "ready"}
    nodes = [node for node in (*NODES, OTHER_NODE) if f"nsmgr-{node}" in pids]
    places = {node: f"/proc/{pids[f'nsmgr-{node}']}/ns/net" for node in nodes}
    for name in [*CLIENTS, *ENDPOINTS]:
        place = await mesh.ask({"command": "place", "workload": name})
        places[name] = f"/proc/{place['supervisor']}/fd/{place['network']}"
    read = await asyncio.gather(*(_read(path) for path in places.values()))
    links = {name: _links(addresses, routes) for name, (addresses, routes, _) in zip(places, read, strict=True)}
    rules = {name: _tables(rules) for name, (_, _, rules) in zip(places, read, strict=True) if name in CLIENTS}
    numbers = {os.stat(path).st_ino for path in places.values()}
    return View(
        links,
        rules,
        await asyncio.to_thread(_programs, numbers),
        pids,
    )


async def look_inside(mesh, view):
    """The same of the running components of `view`."""
    tasks = await mesh.tasks(view.pids.values())
    try:
        records = await asyncio.wait_for(mesh.records(), ASKED_WITHIN)
    except (MeshError, TimeoutError) as error:
        records = {"no node": [f"(cannot be read: {error})"]}
    return Inside(
        {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in view.pids.items()},
        {name: tasks[pid] for name, pid in view.pids.items()},
        records,
    )


def leaks(inside, first, tidy):
    """Open files, tasks and records that nobody owns, as sentences; `first` is what there was at the beginning.

    Work that is under way has tasks and files too. So a component counts as `tidy` from the first look at which it has
    no more than it needs.
    """
    found = []
    for what, now, then, more in (
        ("open files", inside.descriptors, first.descriptors, FORMER_CHANNELS),
        ("tasks", _numbers(inside.tasks), _numbers(first.tasks), 0),
    ):
        for name, number in now.items():
            if number <= (most := _most(name, then) + (more if name in PASSING else more // 3)):
                tidy.add((what, name))
            elif (what, name) not in tidy:
                told = f" ({', '.join(sorted(inside.tasks[name]))})" if what == "tasks" else ""
                found.append(f"{name} has {number} {what}, and {most} at most for what it is used for{told}")
    for node, names in inside.records.items():
        found += [f"{node}'s manager finds {name}, which nobody owns" for name in {*names} - REGISTERED]
        found += [f"{node}'s manager does not find {name}" for name in REGISTERED - {*names}]
        found += [f"{node}'s manager finds {name} {n} times" for name, n in Counter(names).items() if n > 1]
    return found


def _most(name, then):
    """What the component needs for its part of all wires: as at first, when other wires may have led elsewhere."""
    for group, more in ((CLIENTS, 0), (ENDPOINTS, 0), (MANAGERS, WIRES), (FORWARDERS, WIRES), (REGISTRY, WATCHES)):
        if name in group:
            return max(then[other] for other in group) + more
    return then[name]


def _numbers(tasks):
    return {name: len(names) for name, names in tasks.items()}


def faults(view, mesh, rules_at_first):
    """What must not be: a list of sentences, empty if all is well."""
    found = [f"{name} does not run" for name in {*COMPONENTS} - view.pids.keys()]
    found += [f"{node} has {link.alias!r}" for node in (*NODES, OTHER_NODE) for link in view.links.get(node, [])]
    clients = {}
    for client, wires in mesh.wanted.items():
        links = {link.name: link for link in view.links[client]}
        found += [f"{client} has {link.name} ({link.alias}) twice" for link in _repeated(view.links[client])]
        found += [f"{client} lacks {name}" for name in wires.keys() - links.keys()]
        found += [f"{client} has {name} ({links[name].alias})" for name in links.keys() - wires.keys()]
        for name in wires.keys() & links.keys():
            link = links[name]
            found += [] if link.is_up else [f"{client}'s {name} is down"]
            if len(link.addresses) != 1:
                found.append(f"{client}'s {name} has the addresses {link.addresses}")
            for address in link.addresses:
                if address in clients:
                    found.append(f"{client}'s {name} and {clients[address]} have {address}")
                clients[address] = f"{client}'s {name}"
    found += _at_endpoints(view, clients)
    for client, tables in view.rules.items():
        if "ways" in mesh.wanted[client].values() and tables != rules_at_first.get(client, tables):
            found.append(f"{client}'s policy routes have the tables {tables}, at first {rules_at_first[client]}")
    found += _processes(view, mesh)
    return sorted(found)


def _at_endpoints(view, clients):
    found, reached = [], Counter()
    for endpoint in ENDPOINTS:
        for link in view.links[endpoint]:
            reached.update(link.hosts)
            if len(link.hosts) != 1 or not link.hosts <= clients.keys():
                found.append(
                    f"{endpoint} has {link.name} ({link.alias}) to {', '.join(sorted(link.hosts)) or 'nobody'}"
                )
    found += [
        f"{whose} ({address}) has {reached[address]} ends at endpoints"
        for address, whose in clients.items()
        if reached[address] != 1
    ]
    return found


def _processes(view, mesh):
    crossing = 0
    for client, name in mesh.wires():
        link = next((link for link in view.links[client] if link.name == name), None)
        if link is not None and PAYLOADS[mesh.service_of((client, name))] == "IP":
            crossing += any(_node_of(host) not in (None, mesh.node_of[client]) for host in link.hosts)
    has = view.programs["wireguard-go"]
    return [] if has == 2 * crossing else [f"{has} wireguard-go for {crossing} WireGuard wires"]


def _node_of(host):
    for node, _, prefix in ENDPOINTS.values():
        if host.startswith(prefix.rpartition(".")[0] + "."):
            return node
    return None


def _repeated(links):
    aliases = Counter(link.alias for link in links)
    return [link for link in links if aliases[link.alias] > 1]


async def _read(path):
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={path}", "sh", "-c", SCRIPT, stdout=subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, path
    decoder, text, values = json.JSONDecoder(), told.decode(), []
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


def _links(addresses, routes):
    hosts = {}
    for route in routes:
        if "gateway" not in route and route.get("table", "main") == "main" and "/" not in route["dst"]:
            hosts.setdefault(route.get("dev"), set()).add(route["dst"])
    return [
        Link(
            link["ifname"],
            link["ifindex"],
            link["ifalias"],
            "UP" in link["flags"],
            [each["local"] for each in link["addr_info"] if each["family"] == "inet"],
            hosts.get(link["ifname"], set()),
        )
        for link in addresses
        if link.get("ifalias", "").startswith("nsm ")
    ]


def _tables(rules):
    """The numbers of the tables that rules with a protocol or port lead to."""
    return sorted(rule["table"] for rule in rules if {"ipproto", "dport", "sport"} & rule.keys())


def _programs(numbers):
    names = Counter()
    for pid in inhabitants(numbers):
        try:
            names[Path(f"/proc/{pid}/comm").read_text().strip()] += 1
        except OSError:
            continue
    return names
