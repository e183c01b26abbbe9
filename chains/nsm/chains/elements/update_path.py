"""A connection's path gains a segment for each component that it passes.

Segment ids are how a component finds its connection again: the connection's id is always the id of the segment that
the path's index points at, and both are put back on the way out.

A caller may propose an id for the next segment, in a segment without a name: it can close then what it asked for also
if the answer never came. Components that know nothing of it (upstream's) take it for another one's and rename it.

A server makes the id of its segment for the owner of the connection, of what was proposed if anything was (see
`model.segment_ids`). What a connection is called is known to many, and who asks with an id that was made for somebody
else gets one of its own; if that connection stands `Authorize` refuses it, unless the call asks for a new start. So
nobody can be the first to ask with an id that became free, and keep whom it was made for from coming back.
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
    """How a server tells whose a connection is: by whom it trusts; `standing` has the ids of those that there are."""

    trust: Trust = NO_TRUST
    standing: Container[str] = field(default_factory=frozenset)


class UpdatePath(Element):
    """Move to this component's segment, making or renaming it; the caller gets its own index and id back.

    With `asks`, which a client chain sets, the next component gets an id proposed. With `owned`, which a server's chain
    sets, this component's own id is one that was made for the connection's owner, who is in ``call.owner`` then; a call
    that comes back from where this component sent it is refused. Raises `InvalidRequest` for that, and if the index
    points beyond the path or the connection's id is not that of its segment.
    """

    def __init__(self, name: str, *, asks: bool = False, owned: Owned | None = None) -> None:
        self._name, self._asks, self._owned = name, asks, owned

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Step forward, and back in what is returned."""
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
    """Raise `InvalidRequest` if we asked whoever asks, or ourselves: each would pass it on to the other for ever.

    An endpoint may be registered at the socket of a manager or a forwarder. (That a path comes by again, further on,
    is fine: endpoints may be clients themselves.)
    """
    path = _path(connection)
    if path.index == before and before > 0:
        raise InvalidRequest(
            f"the path's segment of who asks is called like this component, {path.path_segments[before].name!r}"
        )
    if path.index > 1 and (own_id := path.path_segments[path.index - 2].id) in owned.standing:
        raise InvalidRequest(f"the call came by here already, as {own_id}: the endpoint's place is that of a component")


async def _own(owned: Owned, call: Call) -> None:
    """Have an id of the owner's in the segment that we are at."""
    assert call.peer is not None
    path = _path(call.connection)
    tokens = [segment.token for segment in path.path_segments[: path.index + 1]]
    call.owner = await owner_of(tokens, path.index, call.peer, owned.trust)
    segment = path.path_segments[path.index]
    is_free = segment.id not in owned.standing or call.connection.state == State.RESELECT_REQUESTED
    if is_free and not is_made_for(call.owner, segment.id):
        segment.id = call.connection.id = make_id(call.owner, segment.id)


def _propose_next(path: Path) -> None:
    """Propose a fresh id to the component that is asked next, if it is not in the path yet."""
    beyond = path.path_segments[path.index + 1 :]
    if len(beyond) > 1 or (beyond and beyond[0].name):
        return
    path.path_segments[path.index + 1 :] = [PathSegment(id=str(uuid.uuid4()))]


def _up_to_here(path: Path) -> list[PathSegment]:
    """The segments that whoever is asked has no say in; of our own, its name and id."""
    *before, own = path.path_segments[: path.index + 1]
    return [*before, PathSegment(name=own.name, id=own.id)]


def _take_back(path: Path, sent: list[PathSegment]) -> None:
    """Have what was `sent` in the answer too: else it could name somebody else's connection as this one's."""
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
