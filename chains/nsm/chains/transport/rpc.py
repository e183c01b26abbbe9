"""Between chains and the wire: a handler becomes methods of a server, a peer becomes a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from betterproto2 import Message

from nsm.apis import health
from nsm.apis.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.apis.mechanisms import INODE_URL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Empty, Timestamp
from nsm.chains.core import (
    DEFAULT_TIMEOUT,
    Call,
    ClientToken,
    FileKey,
    Found,
    Handler,
    Inbox,
    InvalidRequest,
    Key,
    NotFound,
    Peer,
    R,
    Refused,
    RegistryCall,
    RegistryHandler,
    RegistryPath,
    Tasks,
    TimedOut,
    Unavailable,
    file_key,
    tracing,
)
from nsm.chains.core.call import Hop
from nsm.chains.core.kinds import Kind
from nsm.chains.core.named_files import is_path, mechanisms_of, refuse_paths
from nsm.chains.logs import log

from .channel import Answer, Channel, Pool
from .server import Incoming, Methods, Streaming, Unary

M = TypeVar("M", bound=Message)

REQUEST = "/networkservice.NetworkService/Request"
CLOSE = "/networkservice.NetworkService/Close"
MONITOR = "/connection.MonitorConnection/MonitorConnections"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

TOKEN = "nsm-client-token"  # noqa: S105 - a name
TOKEN_EXPIRES = "nsm-client-token-expires"  # noqa: S105 - a name
PATH = "path"
EVENTS, OF_OTHERS, ATTEMPTS = "nsm-events", "of-others", "attempts"
"""With a MonitorConnections: leave out events that repeat the answers to the caller's own calls, or send besides what
was tried for connections that do not exist. Not upstream's."""
FIRST_STATE, IN_PARTS = "nsm-first-state", "in-parts"
"""With a MonitorConnections: send the first state in several parts, and an empty one. Not upstream's."""
CLOSE_PATIENCE = 0.3
"""Seconds that a forwarder waits for the answer to a Close: it closes at endpoints, any of which may hang."""
_PAUSE = 9.0
"""Pause after each event of an untrusted peer, as a multiple of the time that reading the event took."""


# --- servers


def network_service(handler: Handler) -> Methods:
    """The Network Service API, answered by `handler`."""

    async def request(message: NetworkServiceRequest, incoming: Incoming) -> Connection:
        call = Call(message, **_hop(incoming))
        connection = await handler.request(call)
        incoming.not_delivered = call.not_delivered
        if tracing.hooks is not None:
            tracing.hooks.describe(call, connection)
        incoming.files.extend(call.outgoing)
        return connection

    async def close(message: Connection, incoming: Incoming) -> Empty:
        closing = NetworkServiceRequest(connection=message)
        _drop_paths(closing)
        await handler.close(Call(closing, **_hop(incoming)))
        return Empty()

    return {
        REQUEST: Unary(NetworkServiceRequest, request, files=_files_of),
        CLOSE: Unary(Connection, close, files=_files_of_close),
    }


class MonitorHandler(Protocol):
    """Answers MonitorConnections.

    One with a `monitor_others` does so for callers that request no events of their own calls, and one with a
    `monitor_attempts` for callers that request the attempts besides; all of them take `in_parts` then, for callers that
    request the first state in parts.
    """

    def monitor(self, selector: MonitorScopeSelector, peer: Peer | None) -> AsyncIterator[ConnectionEvent]:
        """The current state, then events, for as long as the caller listens."""
        ...


def monitor(handler: MonitorHandler) -> Methods:
    """The Monitor API, answered by `handler`."""
    others: Any = getattr(handler, "monitor_others", None)
    attempts: Any = getattr(handler, "monitor_attempts", handler.monitor)

    async def connections(selector: MonitorScopeSelector, incoming: Incoming) -> AsyncIterator[list[ConnectionEvent]]:
        if others is None:
            events = handler.monitor(selector, incoming.peer)
        else:
            wanted = incoming.metadata.get(EVENTS) if incoming.peer is not None else None
            answer: Any = {OF_OTHERS: others, ATTEMPTS: attempts}.get(wanted or "", handler.monitor)
            events = answer(selector, incoming.peer, in_parts=incoming.metadata.get(FIRST_STATE) == IN_PARTS)
        async for event in events:
            yield [event]

    return {MONITOR: Streaming(MonitorScopeSelector, connections, limit="selector")}


def registry(kind: Kind[R], handler: RegistryHandler[R]) -> Methods:
    """The Registry API for one kind of record, answered by `handler`."""

    async def register(record: R, incoming: Incoming) -> R:
        call = _registry_call(record, incoming)
        answer = await handler.register(call)
        incoming.headers.append((PATH, call.path.to_metadata()))
        incoming.files.extend(call.outgoing)
        return answer

    async def unregister(record: R, incoming: Incoming) -> Empty:
        call = _registry_call(record, incoming)
        await handler.unregister(call)
        incoming.headers.append((PATH, call.path.to_metadata()))
        return Empty()

    async def find(query: Any, incoming: Incoming) -> AsyncIterator[list[Any]]:
        record, watch = kind.from_query(query)
        call: RegistryCall[R] = RegistryCall(record, watch, **_hop(incoming))
        async for batch in handler.find(call):
            incoming.files.extend(call.outgoing)
            call.outgoing.clear()
            yield [kind.to_response(found) for found in batch]

    def files(record: R) -> list[FileKey]:
        return _files_named(kind.url(record))

    return {
        f"{kind.service}/Register": Unary(kind.record, register, limit="record_bytes", files=files),
        f"{kind.service}/Unregister": Unary(kind.record, unregister, limit="record_bytes", files=files),
        f"{kind.service}/Find": Streaming(kind.query, find, limit="record_bytes"),
    }


class Health:
    """The standard health service: SERVING for the services of a component once it is ready."""

    def __init__(self, *services: str) -> None:
        self._status = dict.fromkeys(["", *services], health.HealthCheckResponseServingStatus.SERVING)

    def methods(self) -> Methods:
        """Check and Watch."""
        return {
            HEALTH_CHECK: Unary(health.HealthCheckRequest, self._check, limit="selector"),
            HEALTH_WATCH: Streaming(health.HealthCheckRequest, self._watch, limit="selector"),
        }

    async def _check(self, request: health.HealthCheckRequest, _incoming: Incoming) -> health.HealthCheckResponse:
        if request.service not in self._status:
            raise NotFound(f"there is no service {request.service!r} here")
        return health.HealthCheckResponse(status=self._status[request.service])

    async def _watch(
        self, request: health.HealthCheckRequest, _incoming: Incoming
    ) -> AsyncIterator[list[health.HealthCheckResponse]]:
        unknown = health.HealthCheckResponseServingStatus.SERVICE_UNKNOWN
        yield [health.HealthCheckResponse(status=self._status.get(request.service, unknown))]
        await asyncio.get_running_loop().create_future()  # the status does not change until the server ends


def _hop(incoming: Incoming) -> dict[str, Any]:
    return {
        "deadline": incoming.deadline,
        "peer": incoming.peer,
        "token": _token(incoming.metadata),
        "inbox": incoming.inbox,
        "size": incoming.size,
    }


def _registry_call(record: R, incoming: Incoming) -> RegistryCall[R]:
    text = incoming.metadata.get(PATH)
    path = RegistryPath() if text is None else RegistryPath.from_metadata(text)
    return RegistryCall(record, False, path, **_hop(incoming))


def _token(metadata: dict[str, str]) -> ClientToken | None:
    token, expires = metadata.get(TOKEN), metadata.get(TOKEN_EXPIRES)
    if not token or not expires:
        return None
    try:
        return ClientToken(token, Timestamp.from_rfc3339(expires))
    except ValueError as error:
        raise InvalidRequest(f"the metadata {TOKEN_EXPIRES} cannot be read: {error}") from None


# --- clients


class RemoteNetworkService:
    """The component at a call's target, as the end of a client chain.

    `timeout` is the time limit in seconds of a call whose caller set no deadline. A Close that is not answered
    within `patience` seconds continues in the background, and one to a peer that was unreachable a moment ago at once:
    a component that hangs or is gone does not keep its connections from being moved.
    """

    def __init__(self, pool: Pool, *, timeout: float = DEFAULT_TIMEOUT, patience: float | None = None) -> None:
        self._pool, self._timeout, self._patience = pool, timeout, patience
        self._closes = Tasks("closes that are not answered yet")
        self._known: Key[bool] = Key("known to the peer")

    async def request(self, call: Call) -> Connection:
        """Send the Request; a peer that may have handled a first one although its answer was lost gets a Close.

        A peer that had the connection before, according to the caller, gets none.
        """
        files, stood = list(call.outgoing), call.stood_behind()
        send = await self._connected(call)  # if this fails, the peer does not know the connection
        connection: Connection
        try:
            connection, answer = await send(
                REQUEST, call.request, Connection, files=files, longest=self._pool.limits.request
            )
        except (asyncio.CancelledError, TimedOut, Unavailable):
            if not call.live.get(self._known) and not stood:
                call.undo.add(lambda: self.close(call.postponed()))
            raise
        if not call.live.get(self._known) and not stood.goes_on(connection):
            call.undo.add(lambda: self._close_if_known(call))  # files that the answer names may be refused
        call.live.put(self._known, True)
        call.server_peer, call.inbox = answer.peer, answer.inbox
        call.renew_peer = self._pool.renewal(call)
        answered = NetworkServiceRequest(connection=connection)
        call.named = [*_files_of(answered)]
        try:
            refuse_paths(answered, "the answering component's")
        except Refused:
            _settle(answer.inbox, call.named)
            raise
        if not call.keeps_files:
            _settle(answer.inbox, call.named)
        return connection

    async def _close_if_known(self, call: Call) -> None:
        if call.live.get(self._known):
            await self.close(call.postponed())

    async def close(self, call: Call) -> None:
        """Send the Close."""
        call.live.pop(self._known)
        if self._patience is None:
            await self._close(call)
            return
        closing = self._closes.start(self._close(call), name=f"close of {call.connection.id}")
        is_away = call.target is not None and self._pool.channel(call.target).is_away
        await asyncio.wait([closing], timeout=0 if is_away else self._patience)
        if closing.done():
            closing.result()
        else:
            call.outgoing.clear()  # the caller no longer holds those files open
            log.debug("a close is not answered yet", connection=call.connection.id, target=call.target)

    async def _close(self, call: Call) -> None:
        send = await self._connected(call)
        await send(CLOSE, call.connection, Empty, files=call.outgoing)

    async def _connected(self, call: Call) -> Callable[..., Coroutine[Any, Any, tuple[Any, Answer]]]:
        """Sends a message of `call` over an established connection, with a token of ours."""
        channel, deadline = _channel(self._pool, call), _deadline(call, self._timeout)
        if call.has_others:
            channel.check_reachable()
        metadata = await _credentials(self._pool, channel, deadline)
        return partial(channel.unary, metadata=metadata, deadline=deadline)


class RemoteMonitor:
    """The Monitor API of the component at `target`.

    A peer that the client `trusts` to answer for others may report many connections at once; an event of any other is
    at most as long as a request, and reading its events leaves most of the time to others. With `knows_answers` the
    events of its own calls are not requested; they may arrive all the same. With `in_parts` a long first state may
    arrive in several events of the kind, with an empty one at the end; else the rest follows as updates. With
    `attempts`, which is for viewers, connections that could not be made are reported too (see the element `Attempts`).
    """

    def __init__(
        self,
        pool: Pool,
        target: str,
        trusts: Callable[[str], bool] | None = None,
        *,
        knows_answers: bool = False,
        in_parts: bool = False,
        attempts: bool = False,
    ) -> None:
        self._pool, self._target, self._trusts = pool, target, trusts
        events = ATTEMPTS if attempts else OF_OTHERS
        wanted = [(EVENTS, events, attempts or knows_answers), (FIRST_STATE, IN_PARTS, in_parts)]
        self._metadata = [(name, value) for name, value, is_wanted in wanted if is_wanted]

    async def monitor(self, selector: MonitorScopeSelector, peer: Peer | None = None) -> AsyncIterator[ConnectionEvent]:
        """Its current state, then its events. Raises `Unavailable` if the peer disconnects."""
        channel, limits = self._pool.channel(self._target), self._pool.limits
        is_trusted = self._trusts is None or self._trusts((await channel.peer()).spiffe_id)
        longest, pause = (limits.events, 0.0) if is_trusted else (limits.request, _PAUSE)
        stream = channel.stream(
            MONITOR, selector, ConnectionEvent, metadata=self._metadata, longest=longest, pause=pause
        )
        async for batch in stream:
            batch.reverse()
            while batch:  # one by one, since the last one stays with us until there is another, and may be large
                yield batch.pop()


class RemoteRegistry(Generic[R]):
    """The registry at a call's target, as the end of a registry client chain."""

    def __init__(self, kind: Kind[R], pool: Pool, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._kind, self._pool, self._timeout = kind, pool, timeout

    async def register(self, call: RegistryCall[R]) -> R:
        """Send the Register; the path in the answer becomes the call's."""
        answer, beside = await self._send(call, "Register", self._kind.record)
        _settle(beside.inbox, _files_named(self._kind.url(answer)))
        return answer

    async def unregister(self, call: RegistryCall[R]) -> None:
        """Send the Unregister."""
        await self._send(call, "Unregister", Empty)

    async def find(self, call: RegistryCall[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Send the Find; a watch has no deadline of its own."""
        channel = _channel(self._pool, call)
        query = self._kind.to_query(call.record, call.watch)
        deadline = call.deadline if call.watch else _deadline(call, self._timeout)
        metadata = await _credentials(self._pool, channel, deadline)
        connection = await channel._connection()
        call.inbox = connection.inbox
        method = f"{self._kind.service}/Find"
        async for batch in channel.stream(method, query, self._kind.response, metadata=metadata, deadline=deadline):
            found = [self._kind.from_response(response) for response in batch]
            keys = [key for one in found for key in _files_named(self._kind.url(one.record))]
            try:
                yield found
            finally:
                _settle(connection.inbox, keys)

    async def _send(self, call: RegistryCall[R], method: str, kind: type[M]) -> tuple[M, Answer]:
        channel = _channel(self._pool, call)
        deadline = _deadline(call, self._timeout)
        metadata = [*await _credentials(self._pool, channel, deadline), (PATH, call.path.to_metadata())]
        answer, beside = await channel.unary(
            f"{self._kind.service}/{method}",
            call.record,
            kind,
            metadata=metadata,
            deadline=deadline,
            files=call.outgoing,
        )
        if PATH in beside.headers:
            back = RegistryPath.from_metadata(beside.headers[PATH])
            call.path.index, call.path.tokens = back.index, back.tokens
        call.server_peer, call.inbox = beside.peer, beside.inbox
        call.renew_peer = self._pool.renewal(call)
        return answer, beside


async def check_health(pool: Pool, target: str, service: str = "", *, timeout: float = 5.0) -> bool:
    """Whether `service` of the component at `target` serves. Raises `Unavailable` if it cannot be reached."""
    deadline = asyncio.get_running_loop().time() + timeout
    request = health.HealthCheckRequest(service=service)
    answer, _ = await pool.channel(target).unary(HEALTH_CHECK, request, health.HealthCheckResponse, deadline=deadline)
    return answer.status == health.HealthCheckResponseServingStatus.SERVING


def _channel(pool: Pool, call: Hop) -> Channel:
    if call.target is None:
        raise InvalidRequest("the call has no target")
    return pool.channel(call.target)


def _deadline(call: Hop, timeout: float) -> float:
    return asyncio.get_running_loop().time() + timeout if call.deadline is None else call.deadline


async def _credentials(pool: Pool, channel: Channel, deadline: float | None) -> list[tuple[str, str]]:
    """The token metadata of a call; connects first, since a token names its audience."""
    token = pool.identity.token(await channel.peer(deadline=deadline))
    return [(TOKEN, token.token), (TOKEN_EXPIRES, token.expires.to_rfc3339())]


# --- descriptors that messages name


def _files_of(request: NetworkServiceRequest) -> Iterator[FileKey]:
    for mechanism in mechanisms_of(request):
        yield from _files_named(mechanism.parameters.get(INODE_URL, ""))


def _files_of_close(connection: Connection) -> Iterator[FileKey]:
    """Those of a Close, which a path does not keep from closing."""
    for mechanism in mechanisms_of(NetworkServiceRequest(connection=connection)):
        if not is_path(mechanism):
            yield from _files_named(mechanism.parameters.get(INODE_URL, ""))


def _drop_paths(request: NetworkServiceRequest) -> None:
    """An invalid path must not keep a Close from closing."""
    for mechanism in mechanisms_of(request):
        if is_path(mechanism):
            del mechanism.parameters[INODE_URL]


def _files_named(url: str) -> list[FileKey]:
    key = file_key(url)
    return [key] if key is not None else []


def _settle(inbox: Inbox | None, keys: list[FileKey]) -> None:
    if inbox is not None:
        for key in keys:
            inbox.settle(*key)
