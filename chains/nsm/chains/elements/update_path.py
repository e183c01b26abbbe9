"""Adds a segment to a connection's path for each component that it passes.

Segment ids are how a component finds its connection again: the connection's id is always the id of the segment that
the path's index points at, and both are put back on the way out.

A caller may propose an id for the next segment, in a segment without a name: so it can close what it requested even
if the answer was lost. Components that do not know this (upstream's) take it for another one's and rename it.

A server makes the id of its segment for the owner of the connection, from the proposed one if any (see
`model.segment_ids`). Many components know the name of a connection, and a caller that requests an id that was made
for another gets one of its own; if that connection exists `Authorize` refuses it, unless the call requests a new
start. So no client can take an id that became free, and keep its owner from coming back.
"""

from __future__ import annotations

import uuid
from collections.abc import Container
from dataclasses import dataclass, field

from nsm.apis.connection import Connection, Path, PathSegment, State
from nsm.chains.core import Call, Element, Handler, InvalidRequest
from nsm.chains.model.segment_ids import is_made_for, make_id
from nsm.chains.policy import NO_TRUST, Trust, owner_of


@dataclass(frozen=True)
class Owned:
    """How a server determines the owner of a connection: by its trust; `standing` has the ids of existing ones."""

    trust: Trust = NO_TRUST
    standing: Container[str] = field(default_factory=frozenset)


class UpdatePath(Element):
    """Move to this component's segment, making or renaming it; the caller gets its own index and id back.

    With `asks`, which a client chain sets, an id is proposed to the next component. With `owned`, which a server's
    chain sets, this component's own id is made for the connection's owner, which is in ``call.owner`` then; a call that
    returns from where this component sent it is refused. Raises `InvalidRequest` for that, and if the index
    points beyond the path or the connection's id is not that of its segment.
    """

    def __init__(self, name: str, *, asks: bool = False, owned: Owned | None = None) -> None:
        self._name, self._asks, self._owned = name, asks, owned

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Step forward, and back in the answer."""
        before = self._step(call.connection)
        if self._owned is not None and call.peer is not None:
            _check_way(self._owned, call.connection, before)
            await _own(self._owned, call)
        sent: list[PathSegment] = []
        if self._asks:
            _propose_next(_path(call.connection))
            sent = _up_to_here(_path(call.connection))
        connection = await rest.request(call)
        path = _path(connection)
        _take_back(path, sent)
        if before < len(path.path_segments):  # a peer may answer with no path at all
            path.index = before
            connection.id = path.path_segments[before].id
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Step forward."""
        self._step(call.connection)
        if self._owned is not None and call.peer is not None:
            await _own(self._owned, call)
        await rest.close(call)

    def _step(self, connection: Connection) -> int:
        """Make the index and the id those of this component; returns the index that the caller had."""
        path = _path(connection)
        before = path.index
        if not path.path_segments:
            self._begin(connection, path)
            return 0
        if before >= len(path.path_segments):
            raise InvalidRequest(f"path index {before} points beyond the path's {len(path.path_segments)} segments")
        if path.path_segments[before].name != self._name:
            self._advance(connection, path)
        connection.id = path.path_segments[path.index].id
        return before

    def _begin(self, connection: Connection, path: Path) -> None:
        connection.id = connection.id or str(uuid.uuid4())
        path.index = 0
        path.path_segments = [PathSegment(name=self._name, id=connection.id)]

    def _advance(self, connection: Connection, path: Path) -> None:
        caller = path.path_segments[path.index]
        if caller.id != connection.id:
            raise InvalidRequest(f"connection id {connection.id!r} is not the id of its path segment, {caller.id!r}")
        path.index += 1
        if path.index == len(path.path_segments):
            path.path_segments.append(PathSegment(name=self._name, id=str(uuid.uuid4())))
        elif (segment := path.path_segments[path.index]).name != self._name:
            proposed = "" if segment.name else segment.id
            segment.name, segment.id = self._name, proposed or str(uuid.uuid4())


def _check_way(owned: Owned, connection: Connection, before: int) -> None:
    """Raise `InvalidRequest` if the call was sent by us to its caller, or to ourselves: it would circle forever.

    An endpoint may be registered at the socket of a manager or a forwarder. (A path that passes here again, further on,
    is fine: endpoints may be clients themselves.)
    """
    path = _path(connection)
    if path.index == before and before > 0:
        raise InvalidRequest(
            f"the caller's path segment has the name of this component, {path.path_segments[before].name!r}"
        )
    if path.index > 1 and (own_id := path.path_segments[path.index - 2].id) in owned.standing:
        raise InvalidRequest(f"the call passed here already, as {own_id}: the endpoint's address is a component's")


async def _own(owned: Owned, call: Call) -> None:
    """Put an id of the owner's into the current segment."""
    assert call.peer is not None
    path = _path(call.connection)
    tokens = [segment.token for segment in path.path_segments[: path.index + 1]]
    call.owner = await owner_of(tokens, path.index, call.peer, owned.trust)
    segment = path.path_segments[path.index]
    is_free = segment.id not in owned.standing or call.connection.state == State.RESELECT_REQUESTED
    if is_free and not is_made_for(call.owner, segment.id):
        segment.id = call.connection.id = make_id(call.owner, segment.id)


def _propose_next(path: Path) -> None:
    """Propose a fresh id to the next component, if it is not in the path yet."""
    beyond = path.path_segments[path.index + 1 :]
    if len(beyond) > 1 or (beyond and beyond[0].name):
        return
    path.path_segments[path.index + 1 :] = [PathSegment(id=str(uuid.uuid4()))]


def _up_to_here(path: Path) -> list[PathSegment]:
    """The segments that the next component may not change; of our own, its name and id."""
    *before, own = path.path_segments[: path.index + 1]
    return [*before, PathSegment(name=own.name, id=own.id)]


def _take_back(path: Path, sent: list[PathSegment]) -> None:
    """Restore what was `sent` in the answer: else it could name another connection as this one."""
    if not sent or len(path.path_segments) < len(sent):
        return
    *before, own = sent
    path.path_segments[: len(before)] = before
    answered = path.path_segments[len(before)]
    answered.name, answered.id = own.name, own.id


def _path(connection: Connection) -> Path:
    if connection.path is None:
        connection.path = Path()
    return connection.path
