"""Who may request a connection, close it, and answer for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from nsm.apis.connection import Connection, PathSegment
from nsm.chains.core import Call, CloseRefused, Element, Handler, Key, Refused
from nsm.chains.model.segment_ids import is_bound, is_made_for
from nsm.chains.policy import (
    CLIENT_MASKS,
    NO_TRUST,
    SERVER_MASKS,
    Path,
    PolicySet,
    Trust,
    certificate_is_valid,
    documents,
    owner_name,
    owner_of,
    refusal_of_answer,
)

from .orphans import Orphans

_REMEDY = "`nsm policy test` tests a call against the policies; the clocks of all nodes have to agree"


class Authorize(Element):
    """Check the caller, before any work for it, by the tokens of the path up to this component.

    A call that this process makes itself has no peer and is not checked. A Close is not refused because a token has
    expired, so that nothing outlives its owner; a caller that is not entitled gets `CloseRefused`.

    A connection belongs to the client that requested it first: `call.owner`, as far back in the path as `trust` lets
    the components on it vouch for others. Ids are not secret, so knowing one must not be enough to change or close it.

    With `orphans`, a Request in whose path tokens of unreachable components have expired may keep a connection
    unchanged, and change nothing of it. If the connection is unknown here, the chain has to be one that `goes_on`: the
    components behind this one decide.
    """

    def __init__(
        self,
        masks: Iterable[str] = SERVER_MASKS,
        trust: Trust = NO_TRUST,
        orphans: Orphans | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        self._policies = PolicySet.select(masks, "NSM_SERVER_POLICIES")
        self._trust, self._orphans, self._goes_on = trust, orphans, goes_on
        self._owner: Key[tuple[str, ...]] = Key("owner")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Raise `Refused` if a policy refuses, or the connection is another client's."""
        before, is_kept = _segments_before(call.connection), False
        if (reason := await self._refusal(call, closing=False)) is not None:
            is_kept = self._is_of_orphan(call, before) and await self._refusal(call, closing=True) is None
            if not is_kept:
                raise Refused(f"no sufficient privileges: {reason}", remedy=_REMEDY)
            assert self._orphans is not None
            self._orphans.accept(call)
        is_unknown = call.live.get(self._owner) is None
        connection = await rest.request(call)
        if call.peer is not None:
            call.live.setdefault(self._owner, lambda: call.owner)
            if self._orphans is not None and (is_unknown or not is_kept):
                self._orphans.note(call.live, before, call.peer)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Raise `CloseRefused` in the same cases."""
        if (reason := await self._refusal(call, closing=True)) is not None:
            raise CloseRefused(f"no sufficient privileges: {reason}")
        await rest.close(call)

    def _is_of_orphan(self, call: Call, before: Sequence[PathSegment]) -> bool:
        """Whether the only fault of a request is that tokens of unreachable components have expired."""
        tokens = [segment.token for segment in before]
        if self._orphans is None or call.peer is None or certificate_is_valid(Path(tokens, len(tokens), call.peer)):
            return False
        return self._orphans.tokens_stand(call, tokens) or (self._goes_on and self._orphans.may_pass(call, tokens))

    async def _refusal(self, call: Call, *, closing: bool) -> str | None:
        if call.peer is None:
            return None
        path = call.connection.path
        index = path.index if path is not None else 0
        tokens = [segment.token for segment in path.path_segments[: index + 1]] if path is not None else []
        if not call.owner:
            call.owner = await owner_of(tokens, index, call.peer, self._trust)
        call.origin = call.owner[-1]
        if not self._policies:
            return None
        seen = Path(tokens, index, call.peer)
        reason = self._policies.refusal_of_caller(seen, closing=closing) or self._foreign(call)
        if reason is None and self._policies.files:  # last: calls of one owner wait for each other
            document = documents.of_path(path, call.peer, whole=False)
            reason = await self._policies.refusal_by_files(document, call.peer, origin=call.origin, closing=closing)
        return reason

    def _foreign(self, call: Call) -> str | None:
        owner, own_id = call.live.get(self._owner), call.live.connection_id
        if owner is None and is_bound(own_id) and not is_made_for(call.owner, own_id):  # it was closed just now
            return f"the id {own_id} was made for another client; this call is of {owner_name(call.owner)}"
        if owner is None or owner == call.owner:
            return None
        return f"the connection {own_id} belongs to {owner_name(owner)}; this call is of {owner_name(call.owner)}"


def _segments_before(connection: Connection) -> list[PathSegment]:
    """The segments before this component's."""
    return connection.path.path_segments[: connection.path.index] if connection.path is not None else []


class AuthorizeClient(Element):
    """Check the component that answered, by the tokens of the whole path in the answer.

    A refused answer is undone: a connection that was not authorized before is closed at the peer.
    """

    def __init__(self, masks: Iterable[str] = CLIENT_MASKS) -> None:
        self._policies = PolicySet.select(masks, "NSM_CLIENT_POLICIES")
        self._authorized: Key[bool] = Key("authorized")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Raise `Refused` if a policy refuses."""
        connection = await rest.request(call)
        if call.server_peer is None:
            return connection
        path = connection.path
        tokens = [segment.token for segment in path.path_segments] if path is not None else []
        index = path.index if path is not None else 0
        document = partial(documents.of_path, path, whole=True)
        sent = [segment.token for segment in _segments_before(call.connection)]
        keeps = call.keeps_orphan and tokens[:index] == sent[:index]
        reason = await refusal_of_answer(self._policies, call, tokens, index, document, keeps_orphan=keeps)
        if reason is None:
            call.live.put(self._authorized, True)
            return connection
        if not call.live.get(self._authorized):
            call.undo.add(lambda: rest.close(call.postponed()))
        raise Refused(f"the answer has no sufficient privileges: {reason}", remedy=_REMEDY)

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget that it was authorized."""
        call.live.pop(self._authorized)
        await rest.close(call)
