"""The tokens by which pods are entitled to virtual functions: devices, as the kubelet sees them.

There are as many tokens of each name of a card as it has virtual functions, so a function can be had by several names.
A free token is closed, which the kubelet sees as unhealthy, if no function would be left for it: whatever the kubelet
has allocated can be served.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nsm.chains.core import Conflict, NotFound, Refused
from nsm.chains.model.sriov import TOKEN_PREFIX


class State(Enum):
    """What became of a token."""

    FREE = "free"
    ALLOCATED = "allocated"
    """The kubelet gave it to a container."""
    IN_USE = "in use"
    """A connection uses a virtual function by it."""
    CLOSED = "closed"
    """No function is left for it."""


@dataclass(slots=True)
class _Token:
    name: str
    state: State = State.FREE
    card: str = ""
    """That of the function that is used by it."""


class Tokens:
    """The tokens of cards: `names` and number of functions of each, by its PCI address."""

    def __init__(self, names: Mapping[str, Collection[str]], functions: Mapping[str, int]) -> None:
        self._names, self._functions = names, functions
        self._tokens: dict[str, _Token] = {}
        for card, own in names.items():
            for name in own:
                self._tokens |= {_new_id(): _Token(name) for _ in range(functions[card])}
        self._listeners: list[Callable[[], None]] = []

    def names(self) -> list[str]:
        """The names of tokens, each once."""
        return list(dict.fromkeys(token.name for token in self._tokens.values()))

    def of(self, name: str) -> dict[str, bool]:
        """The ids of the tokens of a name, and whether each is any good."""
        return {each: one.state is not State.CLOSED for each, one in self._tokens.items() if one.name == name}

    def state(self, token: str) -> State:
        """Raises `NotFound` for an unknown id."""
        return self._token(token).state

    def name(self, token: str) -> str:
        """The name that a token is for. Raises `NotFound`."""
        return self._token(token).name

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when any token may have become good, or no good any more."""
        self._listeners.append(listener)

    def restore(self, allocated: Mapping[str, Iterable[str]]) -> None:
        """At the start: what the kubelet allocated before, ids by name, replaces as many new tokens of that name."""
        for name, ids in allocated.items():
            fresh = [each for each, one in self._tokens.items() if one.name == name and one.state is State.FREE]
            for old, new in zip(fresh, dict.fromkeys(ids), strict=False):
                del self._tokens[old]
                self._tokens[new] = _Token(name, State.ALLOCATED)
        self._changed()

    def allocate(self, tokens: Sequence[str]) -> None:
        """The kubelet gives tokens to a container: all of them, or none. Raises `Conflict`, `NotFound`."""
        states = {each: self._token(each).state for each in tokens}
        if closed := sorted(each for each, state in states.items() if state is State.CLOSED):
            raise Conflict(f"no virtual function is left for {', '.join(closed)}: those are used by other names")
        for each in states:
            self._stop(each, State.ALLOCATED)
        self._changed()

    def free(self, token: str) -> None:
        """Its container is gone. Raises `NotFound`."""
        if self._token(token).state is not State.CLOSED:
            self._stop(token, State.FREE)
            self._changed()

    def use(self, token: str, card: str) -> None:
        """A connection gets a function of a card. Raises what `check` does."""
        self.check(token)
        one = self._tokens[token]
        one.state, one.card = State.IN_USE, card
        self._changed()

    def check(self, token: str) -> None:
        """Raise `Refused` if no container has a token, `Conflict` if it is in use, `NotFound` if it is unknown."""
        state = self._token(token).state
        if state in (State.FREE, State.CLOSED):
            raise Refused(f"token {token} was not given to any container of this node")
        if state is State.IN_USE:
            raise Conflict(f"token {token} is in use by another connection")

    def stop_using(self, token: str) -> None:
        """The connection is gone; the container still has the token. Does nothing if it is not in use."""
        one = self._tokens.get(token)
        if one is not None and one.state is State.IN_USE:
            self._stop(token, State.ALLOCATED)
            self._changed()

    def leaves_enough(self, token: str, card: str) -> bool:
        """Whether the other allocated tokens can still be served if this one gets a function of `card`."""
        demand, free = self._demand(), self._free()
        if not _fits(demand, free, self._names):
            return True  # it is too late for care
        demand[self.name(token)] -= 1
        free[card] -= 1
        return free[card] >= 0 and _fits(demand, free, self._names)

    def _token(self, token: str) -> _Token:
        if (one := self._tokens.get(token)) is None:
            raise NotFound(
                f"there is no token {token[:64]!r} on this node; is it another node's, or of an earlier configuration?"
            )
        return one

    def _stop(self, token: str, state: State) -> None:
        one = self._tokens[token]
        one.state, one.card = state, ""

    def _changed(self) -> None:
        """Close as many free tokens of each name as there are functions missing, and open the rest."""
        demand, free = self._demand(), self._free()
        for name in self.names():
            idle = [
                one for one in self._tokens.values() if one.name == name and one.state in (State.FREE, State.CLOSED)
            ]
            wanted, left = demand.copy(), 0
            while left < len(idle):
                wanted[name] += 1
                if not _fits(wanted, free, self._names):
                    break
                left += 1
            for number, one in enumerate(idle):
                one.state = State.FREE if number < left else State.CLOSED
        for listener in self._listeners:
            listener()

    def _demand(self) -> Counter[str]:
        return Counter(one.name for one in self._tokens.values() if one.state is State.ALLOCATED)

    def _free(self) -> Counter[str]:
        free = Counter(dict(self._functions))
        free.subtract(one.card for one in self._tokens.values() if one.state is State.IN_USE)
        return free


def _fits(demand: Mapping[str, int], free: Mapping[str, int], names: Mapping[str, Collection[str]]) -> bool:
    """Whether there is a function for every token wanted, on a card with its name (a maximum flow, by augmentation)."""
    left = {card: max(0, count) for card, count in free.items()}
    given: Counter[tuple[str, str]] = Counter()

    def serve(name: str, tried: set[str]) -> bool:
        for card in (each for each, own in names.items() if name in own and each not in tried):
            tried.add(card)
            if left[card]:
                left[card] -= 1
                given[name, card] += 1
                return True
            for other in [each for (each, where), count in given.items() if where == card and count and each != name]:
                if serve(other, tried):  # it moves to another card, and leaves its place here
                    given[other, card] -= 1
                    given[name, card] += 1
                    return True
        return False

    return all(serve(name, set()) for name, count in demand.items() for _ in range(count))


def _new_id() -> str:
    return f"{TOKEN_PREFIX}{uuid.uuid4()}"
