"""Uses the candidates in turn, each according to its weight, and passes over those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence

from nsm.apis.connection import Connection, State
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Call, Element, Handler, MeshError, TimedOut, Unavailable

from .try_candidates import CANDIDATES, first_success

_LONGEST_REST = 8
_REMEMBERED = 1000
_MOST_CLIENTS = 10_000
"""The number of connections whose last provider is remembered."""
_PATIENCE = 0.5
"""Seconds without an answer that count as a failure of a candidate; a client may give it less."""
_NOBODY = hash(())
"""Instead of a client: for the failures that concern all clients."""


class RoundRobin(Element):
    """Try the candidates of a call, each request of a service starting with the next one; the first success counts.

    Turns are a smooth weighted round robin: in any few requests in a row each candidate gets its share, evenly mixed,
    and the same requests always have the same result. A candidate that failed is skipped for some requests before it is
    tried first again, and one that hangs leaves time to try others; see `first_success` for the errors. An error for
    one client, even that the candidate is full, does not affect others. A client that reselects, since its candidate is
    gone or does not answer, gets that candidate last.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Turns] = {}
        """By network service, the most recently requested one last."""
        self._providers: dict[tuple[str, ...], str] = {}
        """The provider of a client's last connection, the most recent one last."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set target and endpoint name."""
        if not call.candidates:
            return await rest.request(call)
        weights = call.weights or [1] * len(call.candidates)
        turns, by_name = self._turns_of(call.connection.network_service), {each.name: each for each in call.candidates}
        asking, client, wire = _Asking(rest), hash(call.owner), (*call.owner, _origin_id(call.connection))
        order = turns.order(
            {each.name: weight for each, weight in zip(call.candidates, weights, strict=True)},
            client,
            asking.answered,
            left=self._providers.get(wire, "") if call.connection.state == State.RESELECT_REQUESTED else "",
        )
        picked = self._named(call, (by_name[name] for name in order))
        candidate, connection = await first_success(CANDIDATES, picked, len(by_name), call, asking)
        turns.succeeded(candidate.name, client)
        self._provides(wire, candidate.name)
        return connection

    def _provides(self, wire: tuple[str, ...], name: str) -> None:
        self._providers.pop(wire, None)
        self._providers[wire] = name
        while len(self._providers) > _MOST_CLIENTS:
            del self._providers[next(iter(self._providers))]

    def _turns_of(self, service: str) -> Turns:
        """The turns of a service; only those of the most recent services are kept."""
        turns = self._turns.pop(service) if service in self._turns else Turns()
        self._turns[service] = turns
        while len(self._turns) > _REMEMBERED:
            del self._turns[next(iter(self._turns))]
        return turns

    def _named(self, call: Call, candidates: Iterator[NetworkServiceEndpoint]) -> Iterator[NetworkServiceEndpoint]:
        for candidate in candidates:
            call.connection.network_service_endpoint_name = candidate.name
            yield candidate


class _Asking:
    """`rest`, and which candidates have refused, or had no time to answer."""

    def __init__(self, rest: Handler) -> None:
        self._rest, self.close = rest, rest.close
        self.answered: set[str] = set()

    async def request(self, call: Call) -> Connection:
        name, begun = call.connection.network_service_endpoint_name, _now()
        try:
            return await self._rest.request(call)
        except Unavailable:
            raise
        except BaseException as error:
            has_answered = isinstance(error, MeshError) and not isinstance(error, TimedOut)
            if has_answered or _now() - begun < _PATIENCE:
                self.answered.add(name)
            raise


def _origin_id(connection: Connection) -> str:
    """The client's name for its connection, and how far along the path: a chain of services passes here repeatedly."""
    path = connection.path
    return f"{path.path_segments[0].id} {path.index}" if path is not None and path.path_segments else ""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Turns:
    """The order of candidates, for one service.

    Every candidate gains its weight at each turn; the one with the most takes the turn and pays what all gained. One
    that is not a candidate of a request (other labels, absent, resting after a failure) neither gains nor pays.
    """

    def __init__(self) -> None:
        self._gained: dict[str, int] = {}
        self._failures: dict[tuple[str, int], int] = {}
        self._rests: dict[tuple[str, int], int] = {}
        """By candidate, and by client if it is one client's own failure."""

    def order(
        self,
        weights: Mapping[str, int],
        client: int = _NOBODY,
        answered: Collection[str] = (),
        *,
        left: str = "",
    ) -> Iterator[str]:
        """The candidates for `client`, best first; the one that it has `left` last. `weights` are above 0.

        Requesting another one means that the one before failed; for that client alone if it has `answered` by then.
        """
        self._forget_others(weights)
        behind = {name: weight for name, weight in weights.items() if name == left}
        resting = {name: weight for name, weight in weights.items() if name != left and self._passes(name, client)}
        ready = {name: weight for name, weight in weights.items() if name not in resting and name != left}
        for group in (ready, resting, behind):
            remaining = list(group)
            while remaining:
                chosen = self._turn(group, remaining)
                remaining.remove(chosen)
                yield chosen
                self._failed((chosen, client if chosen in answered else _NOBODY))

    def succeeded(self, name: str, client: int = _NOBODY) -> None:
        """A candidate works: it no longer rests."""
        for key in ((name, _NOBODY), (name, client)):
            self._failures.pop(key, None)
            self._rests.pop(key, None)

    def _turn(self, weights: Mapping[str, int], left: Sequence[str]) -> str:
        for name, weight in weights.items():
            self._gained[name] = self._gained.get(name, 0) + weight
        chosen = max(left, key=lambda name: self._gained[name])
        self._gained[chosen] -= sum(weights.values())
        return chosen

    def _passes(self, name: str, client: int) -> bool:
        """Whether a candidate skips this request: the more often it failed, the more of them."""
        resting = {key: left for key in ((name, _NOBODY), (name, client)) if (left := self._rests.get(key, 0))}
        for key, left in resting.items():
            self._rests[key] = left - 1
        return bool(resting)

    def _failed(self, key: tuple[str, int]) -> None:
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        self._rests[key] = min(2 ** (failures - 1), _LONGEST_REST)

    def _forget_others(self, weights: Mapping[str, int]) -> None:
        """Drop endpoints that no longer exist, so that the memory does not grow."""
        most = 2 * len(weights) + _REMEMBERED
        if len(self._gained) > most:
            for name in set(self._gained) - set(weights):
                del self._gained[name]
        for known in (self._failures, self._rests):
            if len(known) > most:
                for key in [key for key in known if key[1] != _NOBODY or key[0] not in weights]:
                    del known[key]
