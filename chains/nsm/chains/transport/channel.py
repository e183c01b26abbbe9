"""Channels to peers: one HTTP/2 connection for each target and identity, shared by all calls, made when needed."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import random
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from betterproto2 import Message
from grpclib.client import Channel as GrpclibChannel
from grpclib.client import Handler as ClientHandler
from grpclib.metadata import decode_grpc_message, encode_timeout
from grpclib.protocol import H2Protocol
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import DataReceived, RemoteSettingsChanged, StreamEnded, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError
from hyperframe.frame import GoAwayFrame

from nsm.apis import codec
from nsm.chains.core import (
    TRANSPORT,
    Backoff,
    Exhausted,
    FileKey,
    Internal,
    InvalidRequest,
    Limits,
    MeshError,
    Peer,
    Presence,
    Received,
    TimedOut,
    Unavailable,
    add_details,
    counts,
    from_status,
    tracing,
)
from nsm.chains.core.call import Hop
from nsm.chains.errors import CANCELED, OK, cut
from nsm.chains.identity import Identity
from nsm.chains.logs import log

from .frames import (
    CONFIGURATION,
    CONTENT_TYPE,
    LEFT_OUT,
    PUSHBACK,
    USER_AGENT,
    CallStream,
    Headers,
    frame,
    not_reached,
    only_message,
    peer_broke,
    read_frame,
    size_of,
    write_all,
)
from .headers import TIMEOUT
from .http2 import Events, Http2Protocol
from .inbox import FileInbox
from .lifetime import Lifetime
from .tls import connect_tls
from .turns import NOTHING, Turns, appended
from .urls import Address, parse_address
from .wire import DescriptorTransport, start_tls

M = TypeVar("M", bound=Message)

DIAL_TIMEOUT = 15.0
"""Seconds to connect and shake hands, unless the caller's deadline is nearer."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_WINDOW = 4 * 1024 * 1024
"""Bytes that a peer may send on one connection before we have read any."""
_BATCH = 256 * 1024
"""Bytes of a stream's answers that are handed on together, about."""
_LONGEST_STATUS = 64 * 1024
_ACCEPTED_SOON = 0.01
"""Seconds until there may be room again at a socket whose backlog is full."""
_LONGEST_PUSHBACK, _SHORTEST_PAUSE = 5, 0.1
"""Digits of the milliseconds after which a busy peer is called again; and the least number of seconds."""
_TO_ANSWER = 0.05
"""Seconds left for a caller to report, before its deadline, that an attempt failed."""


@dataclass(slots=True)
class Answer:
    """The metadata of a unary answer."""

    headers: dict[str, str] = field(default_factory=dict)
    peer: Peer | None = None
    inbox: FileInbox | None = None


class Channel(GrpclibChannel):
    """A channel of grpclib whose connection is ours: mTLS, a verified peer, descriptors on unix sockets.

    The stubs of `nsm.apis` work on it; `unary` and `stream` are the short ways that the mesh itself takes.
    """

    def __init__(
        self,
        target: str,
        identity: Identity,
        *,
        dial_timeout: float = DIAL_TIMEOUT,
        limits: Limits | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.target = target
        self.limits = limits or Limits()
        self.turns = turns or Turns(calls=self.limits.calls)
        self.address: Address = parse_address(target)
        self.generation = identity.generation
        self.calls = 0
        """The calls that use it, from before they connect until they are over."""
        self.is_over = False
        """Whether it is closed as soon as no call uses it."""
        self.on_lost: Callable[[], None] | None = None
        self._identity = identity
        self._dial_timeout = dial_timeout
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._retry_at = 0.0
        self._failures, self._failure = 0, ""
        self._has_left_out = False
        self._connecting = asyncio.Lock()
        self._left: WeakSet[_Protocol] = WeakSet()
        context = identity.client_context()
        super().__init__(
            self.address.host or "localhost",
            self.address.port,
            codec=codec.Codec(),
            ssl=context,
            config=CONFIGURATION,
        )
        self._before_path: Headers = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost" if self.address.is_unix else self._authority),
        ]
        self._behind_path: Headers = [
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", USER_AGENT),
        ]

    async def peer(self, *, deadline: float | None = None) -> Peer:
        """The identity of the other end; connects if necessary. Raises `Unavailable`, `Refused` or `TimedOut`."""
        self.calls += 1
        try:
            with _failures_of(self.target):
                async with asyncio.timeout_at(deadline):
                    return (await self._connection(deadline)).peer
        finally:
            self.done()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the peer."""
        return bool(self._connected)

    @property
    def is_away(self) -> bool:
        """Whether the peer was unreachable a moment ago, and is not tried again yet."""
        return not self._connected and self._retry_at > self._loop.time()

    def check_reachable(self) -> None:
        """Raise `Unavailable` with the last failure, rather than wait for the next attempt, if the peer `is_away`."""
        if self.is_away:
            raise Unavailable(self._failure, element=TRANSPORT)

    async def unary(
        self,
        method: str,
        message: Message,
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
        files: Sequence[str] = (),
        longest: int = 0,
    ) -> tuple[M, Answer]:
        """Call `method` with one message and wait for the one answer; `files` are sent before it.

        The answer may have `longest` bytes; 0: no limit. Raises the peer's error, `TimedOut`, or
        `Unavailable` if the connection breaks.
        """
        self.calls += 1
        begun, code = monotonic(), CANCELED
        try:
            if tracing.hooks is None:
                answer = await self._send(method, message, kind, metadata, deadline, files, longest)
            else:
                with tracing.hooks.client(method) as context:
                    answer = await self._send(method, message, kind, [*metadata, *context], deadline, files, longest)
            code = OK
            return answer
        except MeshError as error:
            code = error.code_name
            raise
        finally:
            name = method.lstrip("/")
            counts.PEER_CALLS.add(name, code)
            counts.PEER_CALL_SECONDS.observe(monotonic() - begun, name)
            self.done()

    async def _send(
        self,
        method: str,
        message: Message,
        kind: type[M],
        metadata: Sequence[tuple[str, str]],
        deadline: float | None,
        files: Sequence[str],
        longest: int,
    ) -> tuple[M, Answer]:
        with _failures_of(self.target):
            async with asyncio.timeout_at(deadline):
                body, most = frame(message), longest or self.limits.answer
                while True:
                    connection = await self._connection(deadline)
                    try:
                        return await self._unary(connection, method, body, kind, metadata, deadline, files, most)
                    except Exhausted as error:
                        pause = self._pause_after(error, deadline)
                    await asyncio.sleep(pause)

    def _pause_after(self, error: Exhausted, deadline: float | None) -> float:
        """Seconds until a call to a busy peer is tried again. Raises `error` if it is not."""
        if error.retry_after is None or deadline is None:
            raise error
        if self._loop.time() + error.retry_after + _TO_ANSWER > deadline:
            raise error
        return error.retry_after

    async def stream(
        self,
        method: str,
        message: Message,
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
        longest: int = 0,
        pause: float = 0.0,
    ) -> AsyncIterator[list[M]]:
        """Call `method` with one message; yields the answers in batches, as they arrive.

        An answer may have `longest` bytes; 0: no limit. After each answer was read and handled, others get their turn
        for `pause` times as long.
        """
        self.calls += 1
        try:
            with _failures_of(self.target):
                async with asyncio.timeout_at(deadline):
                    connection = await self._connection(deadline)
                    longest = longest or self.limits.answer
                    async for batch in self._stream(
                        connection, method, frame(message), kind, metadata, deadline, longest, pause
                    ):
                        yield batch
        finally:
            self.done()

    async def converse(
        self,
        method: str,
        messages: AsyncIterator[Message],
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        longest: int = 0,
        headers: dict[str, str] | None = None,
    ) -> AsyncGenerator[M, None]:
        """Call `method` with several messages, sent when `messages` yields them; yields the answers as they arrive.

        `headers` receives the metadata of the answers. Leaving the iteration ends the call. Raises as `stream` does.
        """
        self.calls += 1
        try:
            with _failures_of(self.target):
                connection, longest = await self._connection(), longest or self.limits.answer
                async with _Exchange(self, connection, 0) as exchange:
                    await exchange.open(self._headers(method, metadata, None))
                    sending = asyncio.ensure_future(exchange.send_each(messages))
                    try:
                        while (data := await read_frame(exchange.stream, longest)) is not None:
                            if headers is not None:
                                headers.update(exchange.stream.headers or ())
                            for answer in self._taken(kind, data, longest):
                                yield answer
                    finally:
                        sending.cancel()
                        await asyncio.gather(sending, return_exceptions=True)
                    if exchange.stream.ended.done():
                        exchange.stream.ended.result()
                    _outcome(exchange.stream, connection.peer)
        finally:
            self.done()

    async def _unary(
        self,
        protocol: _Protocol,
        method: str,
        body: bytes,
        kind: type[M],
        metadata: Sequence[tuple[str, str]],
        deadline: float | None,
        files: Sequence[str],
        longest: int,
    ) -> tuple[M, Answer]:
        async with _Exchange(self, protocol, longest) as exchange:
            await exchange.begin(self._headers(method, metadata, deadline), body, files)
            await exchange.stream.ended
            headers = _outcome(exchange.stream, protocol.peer)
            data = await exchange.stream.recv_data(exchange.stream.data_received)
        return _decoded(kind, only_message(data)), Answer(headers, protocol.peer, protocol.inbox)

    async def _stream(
        self,
        protocol: _Protocol,
        method: str,
        body: bytes,
        kind: type[M],
        metadata: Sequence[tuple[str, str]],
        deadline: float | None,
        longest: int,
        pause: float,
    ) -> AsyncIterator[list[M]]:
        async with _Exchange(self, protocol, 0) as exchange:
            await exchange.begin(self._headers(method, metadata, deadline), body, ())
            stream = exchange.stream
            while (data := await read_frame(stream, longest)) is not None:
                begun = monotonic()
                batch, size = self._taken(kind, data, longest), len(data)
                while not pause and size < _BATCH and len(stream.buffer) >= 5:  # type: ignore[arg-type]  # an `Inflow`
                    if (data := await read_frame(stream, longest)) is None:
                        break
                    size += len(data)
                    batch += self._taken(kind, data, longest)
                yield batch
                if pause:
                    await asyncio.sleep(pause * (monotonic() - begun))
            if stream.ended.done():
                stream.ended.result()
            _outcome(stream, protocol.peer)

    def _taken(self, kind: type[M], data: bytes, longest: int) -> list[M]:
        """The message; None for one that was too long, which is logged once for each channel."""
        if data is not LEFT_OUT:
            return [_decoded(kind, data)]
        counts.LIMITS.add("answer")
        tell = log.debug if self._has_left_out else log.warning
        tell("a message of a peer is too long and is left out", of=self.target, kind=kind.__name__, limit=longest)
        self._has_left_out = True
        return []

    def _headers(self, method: str, metadata: Sequence[tuple[str, str]], deadline: float | None) -> Headers:
        """The headers of a call; the one that always differs is last (see `headers`)."""
        headers = [*self._before_path, (":path", method), *self._behind_path, *metadata]
        if deadline is not None:
            remaining = max(deadline - asyncio.get_running_loop().time(), 1e-6)
            headers.append((TIMEOUT, encode_timeout(remaining)))
        return headers

    async def _connection(self, deadline: float | None = None) -> _Protocol:
        """The connection, made if necessary.

        All waiting calls share one attempt. A call that cannot wait for the next one gets the error of the last one.
        """
        if not self._connected:
            failures = self._failures
            self._check_time(deadline)
            async with self._connecting:
                if not self._connected and failures != self._failures:
                    raise Unavailable(self._failure)
                await self.__connect__()
        protocol = await self.__connect__()
        assert isinstance(protocol, _Protocol)
        return protocol

    def _check_time(self, deadline: float | None) -> None:
        if self.address.is_received:
            self.check_reachable()  # where nobody listens, nobody will: the next process has another socket
        if deadline is not None and deadline <= self._retry_at + _TO_ANSWER:
            raise Unavailable(self._failure)

    async def _create_connection(self) -> H2Protocol:
        """Connect, after a pause if the last attempts failed."""
        await asyncio.sleep(max(0.0, self._retry_at - self._loop.time()))
        try:
            async with asyncio.timeout(self._dial_timeout):
                protocol = await self._dial()
        except (OSError, TimeoutError) as error:
            raise self._failed(not_reached(error, self.target)) from error
        self._backoff.reset()
        self._retry_at = 0.0
        return protocol

    def _failed(self, failure: Unavailable) -> Unavailable:
        self._failures, self._failure = self._failures + 1, failure.detail
        if self.on_lost is not None:
            self.on_lost()
        self._retry_at = self._loop.time() + self._backoff.next()
        return failure

    def _lost(self, protocol: _Protocol) -> None:
        """A connection is gone, and is released. It did not end on purpose, unless it was about to be left."""
        if self._protocol is protocol:
            self._protocol = None
        if self.on_lost is not None and not protocol.leaving:
            self.on_lost()

    def _leave(self, protocol: _Protocol) -> None:
        """Make a new connection for the next call: the peer announced the end of this one."""
        if self._protocol is protocol:
            self._protocol = None
            self._left.add(protocol)

    def done(self) -> None:
        """One of `calls` no longer uses it."""
        self.calls -= 1
        if self.is_over and not self.calls:
            self.close()

    def close(self) -> None:
        """Close the connection, and those that were left and still have calls; one that is being made, when it is."""
        self.is_over = True
        if isinstance(self._protocol, _Protocol):
            self._protocol.say_goodbye()
        super().close()
        for protocol in list(self._left):
            protocol.say_goodbye()
            protocol.processor.close()
        self._left.clear()

    async def _dial(self) -> H2Protocol:
        protocol = _Protocol(self, self._identity, self._lost, self._leave)
        context = self._ssl
        assert context is not None
        if self.address.is_unix:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                await _connect(sock, self.address.path)
            except BaseException:
                sock.close()
                raise
            await start_tls(
                sock, protocol, context, server_side=False, handshake_timeout=self._dial_timeout, limits=self.limits
            )
        else:
            host = self.address.host or "localhost"
            await connect_tls(host, self.address.port, protocol, context, handshake_timeout=self._dial_timeout)
        protocol.raise_refusal()
        return protocol


async def _connect(sock: socket.socket, path: str) -> None:
    """Connect a non-blocking unix socket; if the backlog is full, wait for room."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:  # the kernel does not report when to try again
            await asyncio.sleep(_ACCEPTED_SOON * (1 + random()))  # noqa: S311 - no secret
        else:
            return


@contextmanager
def _failures_of(target: str) -> Iterator[None]:
    """Turn an exception inside into an error of the mesh, and of the transport unless the peer named an element."""
    try:
        yield
    except TimeoutError:
        raise TimedOut(f"{target} did not answer in time", element=TRANSPORT) from None
    except (OSError, ProtocolError) as error:
        raise peer_broke(error, target) from error
    except MeshError as error:
        error.raised_in(TRANSPORT)
        raise


class _Protocol(Http2Protocol):
    """HTTP/2 with a peer that has been verified."""

    def __init__(
        self,
        channel: Channel,
        identity: Identity,
        lost: Callable[[_Protocol], None],
        leave: Callable[[_Protocol], None],
    ) -> None:
        super().__init__(ClientHandler(), CONFIGURATION, _H2_CONFIGURATION)
        self._limits, self._turns = channel.limits, channel.turns
        self._lost, self._leave = lost, leave
        self.leaving = False
        self._identity = identity
        self._lifetime: Lifetime | None = None
        self._line: deque[asyncio.Future[None]] = NOTHING
        self._promised = 0
        self.peer: Peer
        self.refusal: MeshError | None = None
        self.inbox: FileInbox | None = None
        self.files: DescriptorTransport | None = None

    def events(self) -> Events:
        """Events that are answers."""
        return _AnswerEvents(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        tls = transport.get_extra_info("ssl_object")
        try:
            self.peer = self._identity.verify(tls)
        except MeshError as error:
            self.refusal = error.with_traceback(None)  # which holds this object
        self.files = transport.get_extra_info("descriptors")
        self.inbox = self.files.inbox if self.files else None
        limits = self._limits
        self.begin(
            transport,
            streams=limits.streams,
            frames=limits.frames,
            window=max(_WINDOW, 2 * limits.answer),
            stream_window=2 * limits.answer,
        )
        self.h2.goes_away = self._told_to_leave
        self.share = self._turns.share("nobody" if self.refusal is not None else self.peer.spiffe_id)
        if self.refusal is not None:
            transport.abort()
        else:
            self._lifetime = Lifetime(self._identity, tls, self.peer, leave=self._go_over, end=self.abort)
            if self.inbox is not None:
                self.inbox.verified()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.h2.goes_away = None  # it refers to this object
        self.connection.write_ready.set()  # a waiting call finds the connection lost
        for waiter in self._line:
            if not waiter.done():
                waiter.set_result(None)
        self._turns.leave(self.share)
        if self._lifetime is not None:
            self._lifetime.close()
            self._lifetime = None
        self._lost(self)
        del self._lost, self._leave
        self.processor.let_go()

    def raise_refusal(self) -> None:
        """Raise the reason if the peer was refused."""
        if self.refusal is not None:
            try:
                raise self.refusal
            finally:
                self.refusal = None  # its traceback holds this object

    # --- as many streams as the peer accepts, in the order of the calls

    async def room_for_stream(self) -> None:
        """Wait until one more stream may be opened; the caller has to open it before it waits for anything else."""
        if not self._line and self._room > 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line = appended(self._line, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._promised -= 1
                self.next_in_line()
            raise
        self._promised -= 1

    @property
    def _room(self) -> int:
        return self.h2.remote_settings.max_concurrent_streams - len(self.h2.streams) - self._promised

    def next_in_line(self) -> None:
        """A stream ended, or the peer accepts more: start waiting calls."""
        while self._line and self._room > 0:
            waiter = self._line.popleft()
            if not waiter.done():
                self._promised += 1
                waiter.set_result(None)

    # --- its end

    def _go_over(self) -> None:
        self.leaving = True
        self._leave(self)

    def close_if_left(self) -> None:
        """Close a connection that the peer wants to end, after its last call."""
        if self.leaving and not self.processor.streams:
            self.say_goodbye()
            self.connection.close()

    def say_goodbye(self) -> None:
        """Tell the peer that this is a regular end; a killed process does not (see `Server`)."""
        if not self.connection.is_closing():
            with suppress(ProtocolError):
                self.h2.close_connection()
                self.connection.flush()

    def _told_to_leave(self, frame: GoAwayFrame) -> Any:
        """Calls that the peer accepted may finish (RFC 9113 6.8); h2 would end them at once."""
        self._go_over()
        for number, stream in [*self.processor.streams.items()]:
            if number > frame.last_stream_id:
                stream.__terminated__("it ends the connection")
        self.close_if_left()
        return [], []


_H2_CONFIGURATION = H2Configuration(
    client_side=True,
    header_encoding="latin-1",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class _AnswerEvents(Events):
    """The events of a client's connection."""

    def __init__(self, protocol: _Protocol) -> None:
        super().__init__(protocol.handler, protocol.connection)
        self._protocol = protocol

    def let_go(self) -> None:
        """No further events arrive."""
        super().let_go()
        del self._protocol

    def process_data_received(self, event: DataReceived) -> None:
        """Refuse an answer that is too long: nothing reads the rest, so the peer could not continue either."""
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        if isinstance(stream, CallStream) and 0 < stream.longest < stream.data_received - 5:
            stream.fail(Internal(f"the peer's answer is longer than {stream.longest} bytes", limit="answer"))

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        """Start more calls, if the peer accepts more."""
        super().process_remote_settings_changed(event)
        self._protocol.next_in_line()

    def process_stream_ended(self, event: StreamEnded) -> None:
        """Start another call."""
        super().process_stream_ended(event)
        self._protocol.next_in_line()

    def process_stream_reset(self, event: StreamReset) -> None:
        """Start another call."""
        super().process_stream_reset(event)
        self._protocol.next_in_line()


class _Exchange:
    """One stream from its first frame to its release; reset if it is left before its end."""

    def __init__(self, channel: Channel, protocol: _Protocol, longest: int) -> None:
        self._channel, self._protocol = channel, protocol
        self.stream = CallStream(protocol.processor.connection, channel.target, longest)

    async def begin(self, headers: Headers, body: bytes, files: Sequence[str]) -> None:
        """Open the stream and write all of the request."""
        await self._get_ready(headers, files)
        stream = self.stream
        try:
            await write_all(stream, headers, body)
        except StreamClosedError:
            if not stream.ended.done():
                raise
            await stream.ended  # the peer has answered, or broke off, before it had all of the message

    async def open(self, headers: Headers) -> None:
        """Open the stream and write the headers; messages follow."""
        await self._get_ready(headers, ())
        self.stream.begin(headers)

    async def send_each(self, messages: AsyncIterator[Message]) -> None:
        """Send the messages, and then the end, unless the peer ends first."""
        with suppress(StreamClosedError, ProtocolError):
            async for message in messages:
                await self.stream.send_data(frame(message))
            await self.stream.end()

    async def _get_ready(self, headers: Headers, files: Sequence[str]) -> None:
        stream, connection, h2 = self.stream, self._protocol.processor.connection, self._protocol.h2
        await connection.write_ready.wait()
        await self._protocol.room_for_stream()
        if (size := size_of(headers)) > h2.longest_headers:
            self._protocol.next_in_line()
            most, target = h2.longest_headers, self._channel.target
            raise InvalidRequest(f"the metadata of the call has {size} bytes; {target} takes {most}")
        if connection.is_closing():
            raise Unavailable(f"{self._channel.target} went away before it received the call")
        if files and self._protocol.files is not None:
            for path in files:
                self._protocol.files.send_file(path)
        stream.init_stream(h2.get_next_available_stream_id(), connection)
        self._release = self._protocol.processor.register(stream)

    async def __aenter__(self) -> _Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stream.id is None:
            return  # it was not started
        if self.stream.is_open and self.stream.closable:
            self.stream.reset_nowait(ErrorCodes.CANCEL)
        if self.stream.id in self._protocol.processor.streams:
            self._release()
        self._protocol.h2.forget(self.stream.id)
        self._protocol.next_in_line()
        self._protocol.close_if_left()
        del self.stream.ended  # it holds the error, the traceback of which holds the stream


def _decoded(kind: type[M], data: bytes) -> M:
    try:
        return codec.decode(kind, data)
    except codec.DecodeError as error:
        raise Internal(f"the peer's answer cannot be read: {error}") from None


def _outcome(stream: CallStream, peer: Peer) -> dict[str, str]:
    """The headers of a successful answer; raises the error of any other status."""
    headers = dict(stream.headers or ())
    last = dict(stream.trailers) if stream.trailers is not None else headers
    status = last.get("grpc-status")
    if status == "0":
        return headers
    if status is None:
        http = cut(headers.get(":status", "none"), 16)
        raise Internal(f"the peer answered with HTTP status {http} and no gRPC status")
    code = int(status) if status.isascii() and status.isdigit() and len(status) < 4 else 2
    message = decode_grpc_message(cut(last.get("grpc-message", ""), _LONGEST_STATUS))
    error = from_status(code, message, peer.spiffe_id)
    error.retry_after = _pushback(last.get(PUSHBACK, ""))
    add_details(error, last)
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


def _pushback(said: str) -> float | None:
    """The seconds after which a peer accepts a call again; None if it names none, or refuses further attempts."""
    if not said.isascii() or not said.isdigit() or len(said) > _LONGEST_PUSHBACK:
        return None
    return max(int(said) / 1000, _SHORTEST_PAUSE)


class Pool:
    """The channels of this process: one for each target, renewed when the identity rotates.

    A request never pays for a connection that was paid for before. After a rotation new calls go through a new
    channel, since tokens must be signed by the key that the peer saw; the old one ends with its last call.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        dial_timeout: float = DIAL_TIMEOUT,
        limit: int = 256,
        limits: Limits | None = None,
    ) -> None:
        self.identity, self.presence = identity, Presence()
        """The peers that have channels to this component, reported by its server; those of the pool do not count."""
        self.limits = limits or Limits()
        self._turns = Turns(calls=self.limits.calls)
        self._dial_timeout = dial_timeout
        self._limit = limit
        self._channels: dict[str, Channel] = {}
        self._draining: set[Channel] = set()
        self._adopted: dict[str, Received] = {}
        self._adopted_as: dict[FileKey, str] = {}
        counts.CHANNELS.of(self, _states)

    def __len__(self) -> int:
        return len(self._channels) + sum(bool(channel.calls) for channel in self._draining)

    def __iter__(self) -> Iterator[Channel]:
        """The channels that new calls use."""
        return iter([*self._channels.values()])

    def channel(self, target: str) -> Channel:
        """The channel to `target`; not connected until it is used. Raises `InvalidRequest` for a bad target."""
        channel = self._channels.pop(target, None)
        if channel is not None and channel.generation != self.identity.generation:
            self._retire(channel)
            channel = None
        if channel is None:
            channel = Channel(
                target, self.identity, dial_timeout=self._dial_timeout, limits=self.limits, turns=self._turns
            )
            if target in self._adopted:
                channel.on_lost = partial(self.forget, target)
        self._channels[target] = channel
        self._trim()
        return channel

    def renewal(self, call: Hop) -> Callable[[], Awaitable[Peer]]:
        """Finds out who is at the target of an answered call now; see `renewed_peer`."""
        target, seen = call.target, call.server_peer
        assert target is not None
        assert seen is not None
        return lambda: self.renewed_peer(target, seen)

    async def renewed_peer(self, target: str, seen: Peer) -> Peer:
        """The peer at `target` now: over a new connection, unless one was made since `seen` was met there.

        A peer's identity rotates while a connection to it stays, and some peers sign with the new key from then on.
        """
        channel = self.channel(target)
        peer = await channel.peer()
        if peer.certificate_der != seen.certificate_der or self._channels.get(target) is not channel:
            return peer
        channel.calls += 1  # keeps it open: descriptors of its last answer may still be needed
        try:
            self._retire(self._channels.pop(target))
            return await self.channel(target).peer()
        finally:
            channel.done()

    async def listens(self, target: str) -> bool:
        """Whether a process listens at `target`, a unix socket; nothing is sent. True if that cannot be found out."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.connect(parse_address(target).path)
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
        return True

    def adopt(self, socket_file: Received) -> str:
        """The target of a unix socket that arrived as a descriptor; the pool holds it while its channel is in use."""
        key = socket_file.key
        if (known := self._adopted_as.get(key)) is not None:
            socket_file.release()  # it arrived again, over another connection
            return known
        target = self._adopted_as[key] = f"unix://{socket_file.path}"
        self._adopted[target] = socket_file
        return target

    def forget(self, target: str) -> None:
        """No call will use `target` again: its channel ends with its last call."""
        if (channel := self._channels.pop(target, None)) is not None:
            self._retire(channel)
        if (socket_file := self._adopted.pop(target, None)) is not None:
            self._adopted_as.pop(socket_file.key, None)
            socket_file.release()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in [*self._channels.values(), *self._draining]:
            channel.close()
        self._channels.clear()
        self._draining.clear()
        await asyncio.sleep(0)
        for socket_file in self._adopted.values():
            socket_file.release()
        self._adopted.clear()

    def _retire(self, channel: Channel) -> None:
        channel.on_lost = None  # its end does not concern the channel that takes its place
        if channel.calls:
            channel.is_over = True
            self._draining.add(channel)
        else:
            channel.close()
        self._trim()

    def _trim(self) -> None:
        """Drop channels that have drained, and the least recently used ones if there are too many."""
        if self._draining:
            self._draining = {channel for channel in self._draining if channel.calls}
        while len(self._channels) > self._limit:
            self.forget(next(iter(self._channels)))


def _states(pool: Pool) -> Iterator[tuple[str]]:
    """The state of each channel: `away` if the peer could not be reached, `idle` before the first call."""
    for channel in pool:
        yield ("connected" if channel.is_connected else "away" if channel.is_away else "idle",)
