"""How many wires each service, endpoint, node and domain has, counted as wires change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from nsm.chains.model.domains import join, split

from .model import Wire, WireState

SERVICE, ENDPOINT, NODE, DOMAIN = "service", "endpoint", "node", "domain"
Key = tuple[str, str]
"""What is counted, and its name, with its domain if it has one."""
T = TypeVar("T", bound=Hashable)


class Tally:
    """Wires, wires that are not up, and clients by node; names have their domain behind an @, if there is one."""

    def __init__(self) -> None:
        self._wires: Counter[Key] = Counter()
        self._down: Counter[Key] = Counter()
        self._clients: dict[str, Counter[str]] = {}

    def wires(self, what: str, name: str) -> int:
        """How many wires it has."""
        return self._wires[what, name]

    def down(self, what: str, name: str) -> int:
        """How many of them are not up."""
        return self._down[what, name]

    def clients(self, node: str) -> list[str]:
        """The clients on a node that have wires."""
        return sorted(self._clients.get(node, ()))

    def replace(self, former: Wire | None, wire: Wire | None) -> set[Key]:
        """Count `wire` in place of `former`; returns whose counts may have changed."""
        if former is not None and wire is not None and _counted(former) == _counted(wire):
            return set()
        changed: set[Key] = set()
        for each, step in ((former, -1), (wire, 1)):
            if each is not None:
                keys = _keys(each)
                _add(self._wires, keys, step)
                if each.state is not WireState.UP:
                    _add(self._down, keys, step)
                self._add_client(each, step)
                changed.update(keys)
        return changed

    def _add_client(self, wire: Wire, step: int) -> None:
        node = join(wire.node, wire.client_domain)
        clients = self._clients.setdefault(node, Counter())
        _add(clients, [wire.client], step)
        if not clients:
            del self._clients[node]


def _keys(wire: Wire) -> list[Key]:
    home = wire.client_domain
    of_service = wire.domain or home
    endpoint, elsewhere = split(wire.endpoint)
    return [
        (SERVICE, join(wire.service, of_service)),
        (ENDPOINT, join(endpoint, elsewhere or of_service)),
        (NODE, join(wire.node, home)),
        (DOMAIN, home),
    ]


def _counted(wire: Wire) -> tuple[str, ...]:
    """All that counts depend on."""
    return (wire.state, wire.service, wire.domain, wire.endpoint, wire.node, wire.client_domain, wire.client)


def _add(counter: Counter[T], keys: Iterable[T], step: int) -> None:
    for key in keys:
        counter[key] += step
        if not counter[key]:
            del counter[key]
