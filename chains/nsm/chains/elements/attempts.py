"""Remembers what was tried for connections that do not exist, so that an operator sees why."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nsm.apis import codec
from nsm.apis.connection import Connection, ConnectionEventType, Mechanism, Path, PathSegment, State
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.core import Call, Element, Handler, MeshError, TimedOut
from nsm.chains.model.causes import MOST_CANDIDATES, Attempt, Candidate, Cause, cause_in

MOST, MOST_OF_ONE, LIFETIME = 512, 64, 3600.0
"""How many attempts are remembered, of all callers and of one, and for how many seconds after the last try."""
_MOST_LABELS = 32
_NO_ANSWER = "the client gave up before there was an answer"


def cause_of(error: MeshError) -> Cause:
    """Why a request failed: where the error occurred, what it says, and what to do."""
    component = error.hops[-1] if error.hops else ""
    return Cause(error.code_name, error.detail, error.remedy, error.element, component)


@dataclass(slots=True)
class _Remembered:
    """The attempts for one connection of one caller."""

    wanted: Connection
    """How monitors report it."""
    caller: str
    attempt: Attempt = field(default_factory=Attempt)


class Attempts(Element):
    """Remember the requests of clients that failed: how often, since when, why, and what each candidate answered.

    Monitors report each of them to viewers who ask for that, as a connection that is DOWN: its id is its own, its path
    is that of the request, and the segment of this component has an `Attempt` and a `Cause` in its metrics. That of the
    client has a `Cause` if it had the connection before, and restores it. The attempt is deleted when the client gets
    its connection or gives it up, or an hour after the last try.

    Stands behind the element that updates the path, and before all that may refuse: also a client that policies or
    limits refuse has to be found. A component further on the path remembers nothing, as the first one has its errors. A
    request that succeeds costs nothing while there are no attempts.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Remembered] = {}
        """By the caller and its id of the connection; the one tried last at the end."""
        self._of: Counter[str] = Counter()
        self.tell: Callable[[ConnectionEventType, Connection], None] | None = None
        """Receives changes, as the events of a monitor; set by the element `Monitor`."""

    def __len__(self) -> int:
        return len(self._known)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Note a failure."""
        try:
            connection = await rest.request(call)
        except MeshError as error:
            self._failed(call, error)
            raise
        except asyncio.CancelledError:
            self._failed(call, TimedOut(_NO_ANSWER))
            raise
        if self._known:
            self._over(call)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """The client no longer wants it."""
        if self._known:
            self._over(call)
        await rest.close(call)

    def all(self) -> Iterator[Connection]:
        """All attempts, as monitors report them."""
        self._forget_old(time.time())
        for each in [*self._known.values()]:
            yield _shown(each)

    def _failed(self, call: Call, error: MeshError) -> None:
        path, now = call.connection.path, time.time()
        if call.peer is None or path is None or path.index != 1:
            return
        caller, client_id = call.peer.spiffe_id, path.path_segments[0].id
        known = self._known.get((caller, client_id))
        if known is not None and known.wanted.network_service != call.connection.network_service:
            self._forget((caller, client_id))  # the client wants something else under the same id
            known = None
        self._known.pop((caller, client_id), None)
        if known is None:
            self._make_room(caller, now)
            known = _Remembered(_wanted(call), caller)
            self._of[caller] += 1
        self._known[caller, client_id] = known
        _note(known.attempt, error, now)
        client, own = _metrics(known.wanted)
        client.clear()
        if (why := cause_in(path.path_segments[0].metrics)) is not None:
            client.update(why.metrics())
        own.clear()
        own.update({**known.attempt.metrics(), **cause_of(error).metrics()})
        if self.tell is not None:
            self.tell(ConnectionEventType.UPDATE, _shown(known))

    def _over(self, call: Call) -> None:
        path = call.connection.path
        if call.peer is not None and path is not None and path.path_segments:
            self._forget((call.peer.spiffe_id, path.path_segments[0].id))

    def _forget(self, key: tuple[str, str]) -> None:
        if (known := self._known.pop(key, None)) is None:
            return
        self._of[known.caller] -= 1
        if not self._of[known.caller]:
            del self._of[known.caller]
        if self.tell is not None:
            self.tell(ConnectionEventType.DELETE, _shown(known))

    def _forget_old(self, now: float) -> None:
        for key, known in [*self._known.items()]:
            if known.attempt.last > now - LIFETIME:
                break
            self._forget(key)

    def _make_room(self, caller: str, now: float) -> None:
        self._forget_old(now)
        if self._of[caller] >= MOST_OF_ONE:
            self._forget(next(key for key in self._known if key[0] == caller))
        if len(self._known) >= MOST:
            self._forget(next(iter(self._known)))


def _note(attempt: Attempt, error: MeshError, now: float) -> None:
    attempt.tries += 1
    attempt.last = now
    for tried in error.tried:
        former = attempt.candidates.pop(tried.name, None)
        tries = former.tries + 1 if former is not None else 1
        attempt.candidates[tried.name] = Candidate(tried.name, tried.sentence, tries, now)
    while len(attempt.candidates) > MOST_CANDIDATES:
        del attempt.candidates[next(iter(attempt.candidates))]


def _wanted(call: Call) -> Connection:
    """The connection of an attempt: what the client asked for, without anything secret."""
    asked, path = call.connection, call.connection.path
    assert path is not None
    preferences = [asked.mechanism] if asked.mechanism is not None else call.request.mechanism_preferences
    first = preferences[0] if preferences else Mechanism()
    names = {INTERFACE_NAME: first.parameters[INTERFACE_NAME]} if INTERFACE_NAME in first.parameters else {}
    own_id = f"attempt-{uuid.uuid4()}"
    client, own = path.path_segments[0], path.path_segments[1]
    return Connection(
        id=own_id,
        network_service=asked.network_service,
        network_service_endpoint_name=asked.network_service_endpoint_name,
        labels=dict([*asked.labels.items()][:_MOST_LABELS]),
        payload=asked.payload,
        mechanism=Mechanism(cls=first.cls, type=first.type, parameters=names),
        path=Path(
            index=1, path_segments=[PathSegment(name=client.name, id=client.id), PathSegment(name=own.name, id=own_id)]
        ),
        state=State.DOWN,
    )


def _metrics(attempted: Connection) -> tuple[dict[str, str], dict[str, str]]:
    """Those of the client's segment, and of ours."""
    assert attempted.path is not None
    client, own = attempted.path.path_segments
    return client.metrics, own.metrics


def _shown(known: _Remembered) -> Connection:
    return codec.clone(known.wanted)
