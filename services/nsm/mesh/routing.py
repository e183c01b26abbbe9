"""Routes between the nodes of a mesh over several links."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .model import Link, Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Hop:
    """A route to `link`: via the address `via` of the neighbouring `node`."""

    network: Network
    link: Link
    node: str
    via: Address


def neighbours_of(links: Iterable[Link]) -> Mapping[str, dict[str, Link]]:
    """The neighbours of each node, with the first link that joins them."""
    found: dict[str, dict[str, Link]] = {}
    for link in links:
        for name in link.nodes:
            for other in link.nodes:
                if other != name:
                    found.setdefault(name, {}).setdefault(other, link)
    return found


def reachable(links: Iterable[Link], start: str) -> dict[str, str]:
    """The nodes that `start` reaches, each with the first node on the shortest path; itself for `start`."""
    neighbours = neighbours_of(links)
    first, pending = {start: start}, [start]
    for name in pending:
        for other in neighbours.get(name, ()):
            if other not in first:
                first[other] = other if name == start else first[name]
                pending.append(other)
    return first


def hops_of(links: Sequence[Link], node: str) -> set[Hop]:
    """The routes of `node` to each link that it is not part of."""
    first, neighbours = reachable(links, node), neighbours_of(links)
    hops: set[Hop] = set()
    for link in links:
        if node in link.nodes:
            continue
        entrance = next(
            (name for name in first if name in link.nodes), None
        )  # the nearest one, since `first` is ordered by distance
        if entrance is not None:
            way = neighbours[node][first[entrance]]
            hops.add(Hop(link.network, way, first[entrance], way.interface_of(first[entrance]).ip))
    return hops


def crossings(links: Sequence[Link], start: str, goal: str) -> Iterator[tuple[Link, str, str]]:
    """The links on the path of packets from `start` to the address of `goal`, each with the nodes before and after."""
    last = next((link for link in links if goal in link.nodes), None)
    while last is not None and start not in last.nodes:
        hop = next(hop for hop in hops_of(links, start) if hop.network == last.network)
        yield hop.link, start, hop.node
        start = hop.node
    if last is not None and start != goal:
        yield last, start, goal
