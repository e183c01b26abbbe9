"""Uses the candidates in turn, each according to its weight, and passes over those that fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from nsm.apis.connection import Connection
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Call, Element, Handler

from .tries import first_success

_LONGEST_REST = 8
_REMEMBERED = 1000


class RoundRobin(Element):
    """Try the candidates of a call, each request of a service beginning with the next one; the first success counts.

    Turns are a smooth weighted round robin: of any few requests in a row each candidate gets its share, evenly mixed,
    and the same requests always go the same ways. A candidate that failed lets some requests pass before it is tried
    first again, and one that hangs leaves time to try others; see `first_success` for what is raised.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Turns] = defaultdict(Turns)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set target and endpoint name."""
        if not call.candidates:
            return await rest.request(call)
        weights = call.weights or [1] * len(call.candidates)
        turns, by_name = self._turns[call.connection.network_service], {each.name: each for each in call.candidates}
        order = turns.order({each.name: weight for each, weight in zip(call.candidates, weights, strict=True)})
        picked = self._named(call, (by_name[name] for name in order))
        candidate, connection = await first_success("candidates", picked, len(by_name), call, rest)
        turns.succeeded(candidate.name)
        return connection

    def _named(self, call: Call, candidates: Iterator[NetworkServiceEndpoint]) -> Iterator[NetworkServiceEndpoint]:
        for candidate in candidates:
            call.connection.network_service_endpoint_name = candidate.name
            yield candidate


class Turns:
    """Whose turn it is, of one service.

    Every candidate gains its weight at each turn; the one that has most takes the turn and pays what all gained. Who
    is not a candidate of a request (other labels, gone for now, resting after a failure) neither gains nor pays.
    """

    def __init__(self) -> None:
        self._gained: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._rests: dict[str, int] = {}

    def order(self, weights: Mapping[str, int]) -> Iterator[str]:
        """The candidates, best first. Asking for another one says that the one before failed. `weights` are above 0."""
        self._forget_others(weights)
        resting = {name: weight for name, weight in weights.items() if self._passes(name)}
        ready = {name: weight for name, weight in weights.items() if name not in resting}
        for group in (ready, resting):
            left = list(group)
            while left:
                chosen = self._turn(group, left)
                left.remove(chosen)
                yield chosen
                self._failed(chosen)

    def succeeded(self, name: str) -> None:
        """A candidate works: it does not rest any more."""
        self._failures.pop(name, None)
        self._rests.pop(name, None)

    def _turn(self, weights: Mapping[str, int], left: Sequence[str]) -> str:
        for name, weight in weights.items():
            self._gained[name] = self._gained.get(name, 0) + weight
        chosen = max(left, key=lambda name: self._gained[name])
        self._gained[chosen] -= sum(weights.values())
        return chosen

    def _passes(self, name: str) -> bool:
        """Whether a candidate lets this request pass: the more often it failed, the more of them."""
        left = self._rests.get(name, 0)
        if left:
            self._rests[name] = left - 1
        return left > 0

    def _failed(self, name: str) -> None:
        self._failures[name] = failures = self._failures.get(name, 0) + 1
        self._rests[name] = min(2 ** (failures - 1), _LONGEST_REST)

    def _forget_others(self, weights: Mapping[str, int]) -> None:
        """Endpoints come and go: what is remembered does not grow for ever."""
        for known in (self._gained, self._failures, self._rests):
            if len(known) > 2 * len(weights) + _REMEMBERED:
                for name in set(known) - set(weights):
                    del known[name]
