"""Continues the connections of a client's earlier process, and keeps their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    MonitorScopeSelector,
    PathSegment,
    State,
)
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUT,
    Call,
    Element,
    Handler,
    InvalidRequest,
    Limits,
    MeshError,
    TimedOut,
    Unavailable,
)
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection
from nsm.chains.model.sriov import seen_by_others

from .client_info import LABELS
from .liveness import Liveness
from .refresh import choose_anew
from .remember import Memory, is_over
from .retry import attempt_of

Present = Callable[[MonitorScopeSelector], Awaitable[list[Connection]]]
"""The peer's current connections (see `Monitors.present`)."""


class Recover(Element):
    """Request what an earlier process of the client `name` had, as the peer still reports it, if it is still wanted.

    It stands between `Retry` and the chain's `UpdatePath`, so each attempt uses the peer's current report; only calls
    without a path, which have not been answered yet, are looked up. Connections that the peer does not report, since it
    was restarted too, may be in `memory`; after the end of their tokens they count if `liveness` finds that packets
    pass. A connection that is down is reselected, unless `liveness` finds that packets pass. So is one that has to
    move, and one that the peer refuses to continue. A connection with other settings is closed, and replaced by the
    wanted one.
    """

    def __init__(
        self,
        name: str,
        present: Present,
        *,
        liveness: Liveness | None = None,
        memory: Memory | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._name, self._present, self._liveness, self._limits = name, present, liveness, limits
        self._memory = memory

    async def standing(self, timeout: float) -> list[Connection]:
        """All known connections of the client, as its own segment sees them."""
        reported = await self._ask(PathSegment(name=self._name), timeout)
        ids = {each.id for each in reported}
        return [*reported, *(each for each in self._remembered() if each.id not in ids)]

    def _remembered(self) -> list[Connection]:
        return self._memory.all() if self._memory is not None else []

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Continue the connection with the call's id if there is one; else reselect; else request a new one."""
        earlier = await self._earlier(call) if call.connection.path is None else None
        if earlier is None:
            return await rest.request(call)
        remaining = call.remaining()
        timeout = DEFAULT_TIMEOUT if remaining is None else remaining
        for anew in [False, True] if await self._can_go_on(call, earlier) else [True]:
            attempt = attempt_of(call, timeout)
            _continue(attempt.request, earlier, anew=anew)
            try:
                return await rest.request(attempt)
            except MeshError as error:
                if isinstance(error, Unavailable | TimedOut) and (anew or await self._is_alive(earlier)):
                    raise
                log.warning("the earlier connection cannot be continued", connection=earlier.id, error=str(error))
        return await rest.request(attempt_of(call, timeout))

    async def _earlier(self, call: Call) -> Connection | None:
        remaining = call.remaining()
        timeout = (DEFAULT_TIMEOUT if remaining is None else remaining) / 2
        kinds = {mechanism.type for mechanism in call.request.mechanism_preferences}
        wanted = call.connection.id
        reported = await self._ask(PathSegment(id=wanted), timeout)
        for connection in (*reported, *await self._recalled(wanted)):
            if connection.id == wanted and _kind(connection) in kinds:
                return connection
        return None

    async def _recalled(self, wanted: str) -> list[Connection]:
        """What is in memory of the connection: those on the path may have kept it beyond the end of its tokens."""
        found = self._memory.recall(wanted) if self._memory is not None else None
        if found is None or (is_over(found) and not await self._passes(found)):
            return []
        return [found]

    async def _passes(self, connection: Connection) -> bool:
        return self._liveness is not None and await self._liveness.is_alive(connection) is True

    async def _can_go_on(self, call: Call, earlier: Connection) -> bool:
        if earlier.state == State.RESELECT_REQUESTED:
            return False
        is_up = earlier.state != State.DOWN or await self._is_alive(earlier)
        return is_up and is_same_wire(earlier, call.request)

    async def _is_alive(self, connection: Connection) -> bool:
        return self._liveness is not None and await self._liveness.is_alive(connection) is not False

    async def _ask(self, segment: PathSegment, timeout: float) -> list[Connection]:
        try:
            async with asyncio.timeout(timeout):
                found = await self._present(MonitorScopeSelector(path_segments=[segment]))
                return [each for each in map(self._as_ours, found) if each is not None]
        except (MeshError, TimeoutError) as error:
            log.info("the manager does not respond yet", error=str(error))
        return []

    def _as_ours(self, connection: Connection) -> Connection | None:
        """The peer's connection as this client sees it; None if it does not begin here or is invalid."""
        path = connection.path
        if path is None or path.index != 1 or path.path_segments[0].name != self._name:
            return None
        try:
            check_connection(connection, self._limits)
        except InvalidRequest as error:
            log.info("the manager reports an invalid connection", reason=str(error))
            return None
        connection.id, path.index = path.path_segments[0].id, 0
        return connection


def _continue(request: NetworkServiceRequest, earlier: Connection, *, anew: bool) -> None:
    """Make `request` continue `earlier`, or replace it if `anew`; with its addresses if its settings are as wanted."""
    wanted, is_same = request.connection or Connection(), is_same_wire(earlier, request)
    connection = request.connection = codec.clone(earlier)
    connection.state = State.UP
    if anew:
        choose_anew(request)
        connection.context = connection.context if is_same else None
    if connection.context is not None and connection.context.ip_context is not None:
        connection.context.ip_context.excluded_prefixes = []  # among them this wire's own, on behalf of the others
    connection.network_service, connection.labels = wanted.network_service, wanted.labels


def _kind(connection: Connection) -> str:
    return connection.mechanism.type if connection.mechanism is not None else ""


def is_same_wire(earlier: Connection, request: NetworkServiceRequest) -> bool:
    """Whether an earlier process made the same `request`: service, labels, mechanism, interface's name."""
    wanted, mechanism = request.connection or Connection(), earlier.mechanism
    before = {key: value for key, value in earlier.labels.items() if key in wanted.labels or key not in LABELS}
    return (
        mechanism is not None
        and earlier.network_service == wanted.network_service
        and before in (wanted.labels, seen_by_others(wanted.labels))
        and any(
            preference.type == mechanism.type
            and preference.parameters.get(INTERFACE_NAME, "") in {"", mechanism.parameters.get(INTERFACE_NAME)}
            for preference in request.mechanism_preferences
        )
    )
