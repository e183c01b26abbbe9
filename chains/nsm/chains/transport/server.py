"""Listens, verifies callers, and dispatches calls to methods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from random import uniform
from time import monotonic
from typing import Any

from grpclib.exceptions import StreamTerminatedError
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import AbstractHandler
from grpclib.protocol import Connection as H2Writer
from grpclib.protocol import Stream as H2Stream
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from nsm.apis import codec
from nsm.chains.core import (
    TRANSPORT,
    Exhausted,
    FileKey,
    Internal,
    InvalidRequest,
    Limits,
    MeshError,
    Peer,
    Presence,
    Refused,
    Tasks,
    TimedOut,
    Unsupported,
    counts,
    details_of,
    tracing,
)
from nsm.chains.core.tasks import log_defect
from nsm.chains.errors import CANCELED, OK, cut
from nsm.chains.identity import Identity
from nsm.chains.logs import log

from .conversation import Inflow
from .credentials import Credentials, credentials_of
from .disposal import hang_up
from .door import PATIENCE, Door
from .folded import Folded
from .frames import CONTENT_TYPE, PUSHBACK, USER_AGENT, Headers, frame, pieces, size_of, write_all
from .http2 import Events, Http2Protocol
from .inbox import FileInbox
from .lifetime import Lifetime
from .silence import LOOK, Silence
from .sockets import SocketAccess, tcp_socket, unix_socket
from .tls import accept_tls
from .turns import Place, Turns
from .urls import Address, parse_address, publishable
from .wire import DescriptorTransport, refuse_descriptors, start_plain, start_tls

GRACE = 5.0
"""Seconds that calls may still take when the server stops."""
BODY_TIMEOUT = 10.0
"""Seconds in which the one message of a call has to arrive."""
IDLE = 60.0
"""Seconds after which a connection without calls ends, if no identity is shown."""
_UNREAD, _SEEN_UNREAD = 0.1, 10.0
"""Seconds for which an answer counts as unread if the caller sends nothing more and disconnects, and the same if the
kernel reports that the caller left data unread."""
_BACKLOG = 4096
"""The backlog: connections that the kernel keeps until they are accepted, if the system allows as many."""
_AT_ONCE = 32
"""Connections to accept before other work gets its turn."""
_ACCEPT_PAUSE = 0.5
"""Seconds to wait when there are no descriptors left to accept with."""
_LAST_STREAM = 2**31 - 1
_WINDOW = 512 * 1024
"""Bytes that a peer may send on one connection before we acknowledge any."""
_MOST_HELD = 16 * 1024 * 1024
"""Bytes of a peer's waiting calls, beyond which it has to stop sending: they may all be incomplete."""
_LONGEST_DEADLINE = 24 * 3600.0
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TOKEN = "nsm-client-token"  # noqa: S105 - a name


@dataclass(slots=True)
class Incoming:
    """One received call: caller, deadline, metadata; and the metadata and files of the answer."""

    peer: Peer | None
    metadata: dict[str, str]
    deadline: float | None
    inbox: FileInbox | None
    credentials: Credentials | None = None
    size: int = 0
    """Bytes of the message."""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Initial metadata of the answer."""
    files: list[str] = field(default_factory=list)
    """Paths of files whose descriptors are sent before the answer."""
    not_delivered: Callable[[], None] | None = None
    """Called if the caller did not receive the answer."""


@dataclass(frozen=True, slots=True)
class Unary:
    """A method that answers one message with one message; `limit` names the limit of the first one's length.

    `files` are those that a message names: their descriptors may be closed once it was answered, or will not be.
    """

    kind: type[Any]
    answer: Callable[[Any, Incoming], Awaitable[Any]]
    limit: str = "request"
    files: Callable[[Any], Iterable[FileKey]] | None = None

    async def settled(self, message: Any, incoming: Incoming) -> Any:
        """The answer to `message`; then the files that it names are settled, also if that is an error."""
        inbox, files = incoming.inbox, self.files
        if inbox is None or files is None:
            return await self.answer(message, incoming)
        keys = [*files(message)]
        try:
            return await self.answer(message, incoming)
        finally:
            for key in keys:
                inbox.settle(*key)


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method that answers one message with batches of messages; `limit` as for `Unary`."""

    kind: type[Any]
    answer: Callable[[Any, Incoming], AsyncIterator[Sequence[Any]]]
    limit: str = "request"


@dataclass(frozen=True, slots=True)
class Conversing:
    """A method whose caller sends several messages, which `answer` reads one at a time; `limit` is for each of them."""

    kind: type[Any]
    answer: Callable[[AsyncIterator[Any], Incoming], AsyncIterator[Sequence[Any]]]
    limit: str = "selector"


Method = Unary | Streaming | Conversing
Methods = Mapping[str, Method]
"""By path, such as ``/networkservice.NetworkService/Request``."""


IsIntermediary = Callable[[str], bool]
"""Whether a SPIFFE ID is a manager's or a forwarder's, which pass on the calls of many others."""


@asynccontextmanager
async def serve(
    urls: Sequence[str],
    methods: Methods,
    identity: Identity,
    *,
    name: str,
    access: SocketAccess | None = None,
    limits: Limits | None = None,
    takes_descriptors: bool = True,
    is_intermediary: IsIntermediary | None = None,
    presence: Presence | None = None,
) -> AsyncIterator[list[str]]:
    """Serve `methods` on every one of `urls` over mTLS; gives the URLs as others can dial them.

    On unix sockets, a peer that sends descriptors is disconnected unless this `takes_descriptors`. A peer that
    `is_intermediary`, by its SPIFFE ID, may have more connections than others: upstream's make one for each wire of
    their clients. `presence` receives the identities that have connections.

    Calls that run when the body ends get `GRACE` seconds. Raises `Conflict` if another process listens there already,
    `InvalidRequest` for a bad URL. `name` is the hop that errors show. `limits` hold for each peer.
    """
    server = Server(methods, identity, name, limits, takes_descriptors=takes_descriptors, presence=presence)
    server.is_intermediary = is_intermediary or server.is_intermediary
    try:
        listening = [await server.listen(parse_address(url), access or SocketAccess()) for url in urls]
        yield listening
    finally:
        await server.stop(GRACE)


@asynccontextmanager
async def serve_plain(
    path: str, methods: Methods, *, name: str, access: SocketAccess, limits: Limits | None = None
) -> AsyncIterator[Server]:
    """Serve on a unix socket without TLS: for the Workload API, which issues the identities, and the kubelet.

    Calls carry the kernel's `Credentials` of the caller instead of a verified peer.
    """
    server = Server(methods, None, name, limits, takes_descriptors=False)
    try:
        await server.listen(Address(path=path), access)
        yield server
    finally:
        await server.stop(0)


class Server:
    """The listening sockets, the connections and the running calls of one component."""

    def __init__(
        self,
        methods: Methods,
        identity: Identity | None,
        name: str,
        limits: Limits | None = None,
        *,
        takes_descriptors: bool = True,
        presence: Presence | None = None,
    ) -> None:
        self._takes_descriptors = takes_descriptors
        self.methods, self.identity, self.name = methods, identity, name
        self.limits = limits or Limits()
        self.calls = Tasks(f"server {name}")
        self.turns = Turns(calls=self.limits.calls, work=self.limits.work, here=self.limits.taken, presence=presence)
        self.folded = Folded()
        self._loop = asyncio.get_running_loop()
        self._sockets: list[tuple[socket.socket, Address]] = []
        begin = b"P" if identity is None else b"\x16"  # HTTP/2's preface, or a handshake of TLS
        self._door = Door(self._shake_hands, begin, self.limits, self.folded, name)
        self.connections: set[_Connection] = set()
        self._silence, self._looking = Silence(), None if identity is None else self._loop.call_later(LOOK, self._look)
        self.admits: Callable[[Credentials], bool] | None = None
        """Whether a process may have one more connection here; used without TLS."""
        self.is_intermediary: IsIntermediary = lambda _spiffe_id: False
        if identity is not None:
            identity.watchers.add(self._renew_connections)

    async def listen(self, address: Address, access: SocketAccess) -> str:
        """Listen on one more address; returns the URL that others can dial."""
        sock = unix_socket(address.path, access) if address.is_unix else await tcp_socket(self._loop, address)
        if address.is_unix and not self._takes_descriptors:
            refuse_descriptors(sock)
        sock.listen(_BACKLOG)
        self._sockets.append((sock, address))
        self._loop.add_reader(sock.fileno(), self._accept, sock, address)
        if address.is_unix:
            return str(address)
        return publishable(str(Address(host=address.host, port=sock.getsockname()[1])))

    async def stop(self, grace: float) -> None:
        """Stop listening, let calls finish for `grace` seconds, then end them.

        A stream ends at once: it may be a watch, which has no end of its own.
        """
        for sock, address in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
            if address.is_unix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address.path)
        self._sockets.clear()
        if self._looking is not None:
            self._looking.cancel()
        if self.identity is not None:
            self.identity.watchers.discard(self._renew_connections)
        await self._door.aclose()
        for connection in list(self.connections):
            connection.say_goodbye()
        until = self._loop.time() + grace
        while running := [task for connection in self.connections for task in connection.finite_calls()]:
            await asyncio.wait(running, timeout=until - self._loop.time())
            if self._loop.time() >= until:
                break
        await self.calls.aclose()
        for connection in list(self.connections):
            connection.end()
        self.folded.flush()
        await asyncio.sleep(0)

    def _renew_connections(self) -> None:
        """Make peers reconnect: their connections end with the SVID that was shown to them."""
        for connection in list(self.connections):
            connection.ask_to_leave()

    def _look(self) -> None:
        """End the connections of peers that no longer respond."""
        self._silence.look([connection for connection in self.connections if connection.peer is not None])
        self._looking = self._loop.call_later(LOOK, self._look)

    def _accept(self, listening: socket.socket, address: Address) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("cannot accept a connection", on=str(address), error=str(error), again_in_s=_ACCEPT_PAUSE)
                self._loop.remove_reader(listening.fileno())  # it would be readable at once, again and again
                self._loop.call_later(_ACCEPT_PAUSE, self._accept_again, listening, address)
                return
            sock.setblocking(False)
            self._door.arrived(sock, address)

    def _accept_again(self, listening: socket.socket, address: Address) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening, address)

    async def _shake_hands(self, sock: socket.socket, address: Address) -> bool:
        protocol = _Connection(self)
        try:
            if self.identity is None:
                start_plain(sock, protocol)
            elif address.is_unix:
                await start_tls(
                    sock,
                    protocol,
                    self.identity.server_context(),
                    server_side=True,
                    handshake_timeout=PATIENCE,
                    limits=self.limits,
                    takes_descriptors=self._takes_descriptors,
                )
            else:
                await accept_tls(sock, protocol, self.identity.server_context(), handshake_timeout=PATIENCE)
        except (OSError, MeshError, TimeoutError) as error:
            hang_up(sock) if address.is_unix else sock.close()
            counts.HANDSHAKES.add("its handshake failed")
            self.folded.warn("a peer was refused", on=str(address), error=str(error) or type(error).__name__)
            return False
        return True


class _Connection(Http2Protocol):
    """One peer's connection: its identity, and the calls on it."""

    def __init__(self, server: Server) -> None:
        super().__init__(None, None, _H2_CONFIGURATION)  # type: ignore[arg-type]  # `begin` needs no configuration
        self._server = server
        self.peer: Peer | None = None
        self.credentials: Credentials | None = None
        self.files: DescriptorTransport | None = None
        self.refuses = ""
        """Why new calls are refused, if they are."""
        self.unread_answers: list[tuple[float, Callable[[], None]]] = []
        """When answers were written that the peer may not have received yet, and how to undo their calls."""
        self._lifetime: Lifetime | None = None
        self._idle: asyncio.TimerHandle | None = None

    def events(self) -> Events:
        """Events that are calls."""
        return _CallEvents(self.handler, self.connection)

    def calls(self) -> list[asyncio.Task[None]]:
        """The calls that run."""
        return list(self.running.tasks.values())

    def finite_calls(self) -> list[asyncio.Task[None]]:
        """The calls with an end of their own."""
        return [task for stream, task in self.running.tasks.items() if isinstance(stream.method, Unary)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        server, identity = self._server, self._server.identity
        self.handler = self.running = _Calls(server, self)
        limits = server.limits
        longest = max(_longest(limits, name) for name in ("request", "record_bytes", "selector", "workload"))
        self.begin(
            transport,
            streams=limits.streams,
            frames=limits.frames,
            window=max(_WINDOW, 2 * longest),
            stream_window=max(65535, longest + 1024),
        )
        self.files = transport.get_extra_info("descriptors")
        server.connections.add(self)
        counts.CONNECTIONS.add()
        if identity is None:
            self.credentials = credentials_of(transport.get_extra_info("socket"))
            is_let_in = self._is_let_in(f"process {self.credentials.pid} of user {self.credentials.uid}")
            if is_let_in and server.admits is not None and not server.admits(self.credentials):
                self.abort("the server does not admit it")
            self._idle = asyncio.get_running_loop().call_later(IDLE, self._end_if_idle)
            return
        try:
            tls = transport.get_extra_info("ssl_object")
            peer = identity.verify(tls)
        except MeshError as error:
            self._is_let_in("nobody")
            self._turn_away("its identity is not valid", str(error))
            return
        self.peer = replace(peer, **_place(transport.get_extra_info("peername"), transport.get_extra_info("socket")))
        if self._is_let_in(peer.spiffe_id):
            if self.files is not None and self.files.inbox is not None:
                self.files.inbox.verified()
            self._lifetime = Lifetime(identity, tls, self.peer, leave=self._lose_trust, end=self.abort)
            if peer.seen is not identity.svid:
                self.ask_to_leave()

    def _is_let_in(self, who: str) -> bool:
        self.share = self._server.turns.share(who)
        limits, used = self._server.limits, self.share.connections
        if used <= limits.connections or who == "nobody":
            return True
        limit, hint = "connections", ", and NSM_INTERMEDIARIES if it is a manager or a forwarder"
        if self._server.is_intermediary(who):
            limit, hint = "intermediary_connections", ""
            if used <= limits.intermediary_connections:
                return True
        counts.LIMITS.add(limit)
        most = getattr(limits, limit)
        self._turn_away(
            "too many connections", f"{who} has {most} connections; NSM_LIMITS={limit}:.. allows more{hint}"
        )
        return False

    def _turn_away(self, reason: str, text: str) -> None:
        counts.HANDSHAKES.add(reason)
        self._server.folded.warn("a peer was refused", error=cut(text, 512))
        self.abort(reason)

    def data_received(self, data: bytes) -> None:
        if self.unread_answers:  # a peer that continues has read them
            self.unread_answers.clear()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connections.discard(self)
        counts.CONNECTIONS.add(by=-1)
        super().connection_lost(exc)
        self._take_back_unread(_SEEN_UNREAD if isinstance(exc, ConnectionError) else _UNREAD)
        self.running.forget_all()
        self._server.turns.leave(self.share)
        if self._lifetime is not None:
            self._lifetime.close()
            self._lifetime = None
        if self._idle is not None:
            self._idle.cancel()
        if self.credentials is not None:
            self.credentials.close()
        del self.handler, self.running
        self.processor.let_go()

    def says_goodbye(self, stream: _ServedStream) -> bool:
        """Whether the caller is a client that disconnects without notice only if it is killed.

        An intermediary may have passed the answer on already.
        """
        is_ours = stream.fields.get("user-agent", "").startswith(USER_AGENT)
        return is_ours and self.peer is not None and not self._server.is_intermediary(self.peer.spiffe_id)

    def _take_back_unread(self, seconds: float) -> None:
        """The peer disconnected right after answers: it was killed before it could use them."""
        since = monotonic() - seconds
        for written, not_delivered in self.unread_answers:
            if written >= since:
                not_delivered()

    def say_goodbye(self) -> None:
        """Tell an idle peer to open no further streams here."""
        if not self.running.streams and not self.connection.is_closing():
            with contextlib.suppress(ProtocolError):
                self.h2.close_connection()
                self.connection.flush()

    def ask_to_leave(self) -> None:
        """Tell the peer to use a new connection for new calls; this one stays until the peer ends it.

        The frame bypasses h2, which would take it for the end of the connection.
        """
        if not self.connection.is_closing():
            self.connection.flush()
            self.connection._transport.write(GoAwayFrame(0, last_stream_id=_LAST_STREAM).serialize())

    def _lose_trust(self) -> None:
        self.refuses = "the authority of your identity is no longer trusted here"
        self.ask_to_leave()

    def _end_if_idle(self) -> None:
        if self.running.streams:
            self._idle = asyncio.get_running_loop().call_later(IDLE, self._end_if_idle)
        else:
            self.end()

    def abort(self, reason: str) -> None:
        """End the connection at once; the peer has not broken it off."""
        self.unread_answers.clear()
        super().abort(reason)

    def end(self) -> None:
        self.unread_answers.clear()
        self.processor.close("the server stops")


_H2_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding="latin-1",  # a call with other than ASCII is refused
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class _ServedStream(H2Stream):
    """One call's stream: its message is assembled here before the call is started."""

    id: int
    method: Method
    fields: dict[str, str]
    deadline: float | None
    longest: int

    headers_received = trailers_received = asyncio.Event()
    """Only for users of the interface: nothing here waits for it."""

    def __init__(self, connection: H2Writer, stream_id: int) -> None:
        # instead of grpclib's, with which each of thousands of waiting calls has three events of 800 bytes
        self.connection, self.id, self.wrapper = connection, stream_id, None
        self._h2_connection, self._transport = connection._connection, connection._transport
        self.body = bytearray()
        self.held_bytes = 0
        """The bytes of its peer's share, until it is started."""
        self.unread = 0
        """The part of them that was not acknowledged to the peer."""
        self.is_taken = False
        """Whether it is counted as a call with an end of its own."""
        self.inflow: Inflow | None = None
        """The messages, of a call that may have several."""
        self.has_begun = self.is_read = False
        """Whether it waits for its turn, or had it; whether its message was read."""

    @cached_property
    def window_updated(self) -> asyncio.Event:  # type: ignore[override]  # created when it has to be waited for
        """Set when the peer allows more of the answer to be sent."""
        return asyncio.Event()

    def receive(self, data: bytes) -> None:
        """Take a part of the message. Raises `InvalidRequest` as soon as the message is known to be invalid."""
        body = self.body
        body += data
        if len(body) < 5:
            return
        size = int.from_bytes(body[1:5], "big")
        if body[0]:
            raise InvalidRequest("the message is compressed, which was not agreed")
        if size > self.longest:
            limit = self.method.limit
            most = f"at most {self.longest} are allowed (NSM_LIMITS={limit}:..)"
            raise InvalidRequest(f"the message is too large: {limit} is {size}, {most}", limit=limit)
        if len(body) > 5 + size:
            raise InvalidRequest("the call has more than one message")

    def message(self) -> bytes:
        """The message. Raises `InvalidRequest` if it ended too soon."""
        body = self.body
        if not body:
            raise InvalidRequest("the call has no message")
        if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
            raise InvalidRequest("the call ended in the middle of its message")
        return bytes(memoryview(body)[5:])

    def __ended__(self) -> None:
        """The caller has sent everything."""

    def __terminated__(self, reason: str) -> None:
        """The call is over, whatever its result."""


class _CallEvents(Events):
    """The events of a server's connection."""

    handler: _Calls

    def process_request_received(self, event: RequestReceived) -> None:
        stream = _ServedStream(self.connection, event.stream_id)
        self.streams[event.stream_id] = stream
        self.handler.arrived(stream, event.headers)  # type: ignore[arg-type]  # texts, by `header_encoding`

    def process_data_received(self, event: DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.connection.ack(event.stream_id, event.flow_controlled_length)
            return
        assert isinstance(stream, _ServedStream)
        self.handler.received(stream, event.data, event.flow_controlled_length)

    def process_stream_ended(self, event: StreamEnded) -> None:
        super().process_stream_ended(event)
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            assert isinstance(stream, _ServedStream)
            self.handler.is_complete(stream)


class _Calls(AbstractHandler):
    """The calls of one connection: each waits for its message and its turn, and then becomes a task."""

    def __init__(self, server: Server, connection: _Connection) -> None:
        self._server, self._connection = server, connection
        self.streams: set[_ServedStream] = set()
        self.tasks: dict[_ServedStream, asyncio.Task[None]] = {}
        self._incomplete: dict[_ServedStream, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]) -> None:
        """Not used: see `arrived`."""
        raise NotImplementedError

    # --- until the message is there

    def arrived(self, stream: _ServedStream, headers: Headers) -> None:
        """A call arrived."""
        self.streams.add(stream)
        self._connection.share.calls += 1
        try:
            self._check(stream, headers)
        except MeshError as error:
            self._refuse(stream, error)
            return
        self._incomplete[stream] = monotonic() + BODY_TIMEOUT
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BODY_TIMEOUT, self._end_slow_ones)

    def _check(self, stream: _ServedStream, headers: Headers) -> None:
        limits, connection = self._server.limits, self._connection
        fields = stream.fields = dict(headers)
        if connection.refuses:
            raise Refused(connection.refuses)
        if connection.share.calls > 2 * limits.streams:
            raise Exhausted(
                f"{connection.share.who} has {2 * limits.streams} calls here already",
                limit="streams",
                retry_after=_come_again(),
            )
        if (size := size_of(headers)) > limits.metadata:
            most = f"the limit here is {limits.metadata} (NSM_LIMITS=metadata:..)"
            raise InvalidRequest(f"the metadata of the call has {size} bytes; {most}", limit="metadata")
        if len(fields.get(_TOKEN, "")) > limits.token:
            raise InvalidRequest(
                f"the token of the call is longer than {limits.token} bytes (NSM_LIMITS=token:..)", limit="token"
            )
        if not "".join(fields.values()).isascii():
            raise InvalidRequest("the metadata of the call has characters that are not ASCII")
        method = self._server.methods.get(fields.get(":path", ""))
        if method is None:
            raise Unsupported(f"there is no method {cut(fields.get(':path', ''), 256)!r} here")
        if not fields.get("content-type", "").startswith(CONTENT_TYPE):
            raise InvalidRequest(f"content-type {cut(fields.get('content-type', ''), 64)!r} is not {CONTENT_TYPE}")
        if isinstance(method, Unary):
            self._take_in(stream)
        stream.method, stream.longest = method, _longest(limits, method.limit)
        stream.deadline = _deadline(fields.get("grpc-timeout"))
        if isinstance(method, Conversing):
            stream.inflow = Inflow(stream.longest, method.limit)

    def _take_in(self, stream: _ServedStream) -> None:
        """Count one more call. Raises `Exhausted`."""
        turns, share = self._server.turns, self._connection.share
        if turns.is_full_for(share):
            raise Exhausted(
                f"{turns.taken} calls are here, {share.taken} of them of {share.who}; try again later",
                limit="taken",
                retry_after=_come_again(),
            )
        turns.take(share, 1)
        stream.is_taken = True

    def received(self, stream: _ServedStream, data: bytes, size: int) -> None:
        """A part of a call's message arrived, in `size` bytes with its padding."""
        if stream.inflow is not None:
            self._connection.connection.ack(stream.id, size)
            stream.inflow.receive(data)
            self._begin_if_readable(stream)
            return
        share = self._connection.share
        share.held_bytes += size
        stream.held_bytes += size
        if share.held_bytes <= _MOST_HELD:
            self._connection.h2.take(size)
        else:
            stream.unread += size
        try:
            stream.receive(data)
        except MeshError as error:
            self._refuse(stream, error)

    def is_complete(self, stream: _ServedStream) -> None:
        """A call is complete: it starts when it is its turn."""
        if stream.inflow is not None:
            stream.inflow.end()
            self._begin_if_readable(stream)
            return
        self._begin(stream)

    def _begin_if_readable(self, stream: _ServedStream) -> None:
        """A call with several messages starts with the first."""
        if not stream.has_begun and stream.inflow is not None and stream.inflow.is_readable:
            self._begin(stream)

    def _begin(self, stream: _ServedStream) -> None:
        stream.has_begun = True
        self._incomplete.pop(stream, None)
        self._connection.share.begin(partial(self._start, stream))

    def _end_slow_ones(self) -> None:
        now, self._timer = monotonic(), None
        for stream, until in [*self._incomplete.items()]:
            if until > now + 0.01:
                self._timer = asyncio.get_running_loop().call_later(until - now, self._end_slow_ones)
                return
            error = TimedOut(f"the message of the call did not arrive within {BODY_TIMEOUT:g} s", limit="slow_messages")
            self._refuse(stream, error)

    def _refuse(self, stream: _ServedStream, error: MeshError) -> None:
        """Answer a call that was not started, and ignore the rest of it."""
        error.passed(self._server.name)
        _count(error)
        path = stream.fields.get(":path", "")
        counts.CALLS.add(path.lstrip("/") if path in self._server.methods else "", error.code_name, TRANSPORT)
        if stream.closable:
            with contextlib.suppress(ProtocolError):
                h2 = self._connection.h2
                h2.send_headers(stream.id, [*_OK_HEADERS, *_status(error, h2.longest_headers)], end_stream=True)
                self._connection.connection.flush()
        self.release(stream)

    # --- while it runs

    def _start(self, stream: _ServedStream, place: Place) -> bool:
        if stream not in self.streams:
            return False  # it was cancelled while it waited
        task = self.tasks[stream] = self._server.calls.spawn(self._answer(stream), name="call")
        counts.RUNNING.add()
        task.add_done_callback(partial(self._done, stream, place))
        return True

    def _done(self, stream: _ServedStream, place: Place, _task: asyncio.Task[None]) -> None:
        counts.RUNNING.add(by=-1)
        self.tasks.pop(stream, None)
        self.release(stream)
        place.leave()

    def release(self, stream: _ServedStream) -> None:
        """Stop all work for a call."""
        if stream.has_begun and not stream.is_read:
            self._settle_unread(stream)
        self._take(stream)
        if stream in self.streams:
            self.streams.remove(stream)
            self._connection.share.calls -= 1
            if stream.is_taken:
                self._server.turns.take(self._connection.share, -1)
        self._incomplete.pop(stream, None)
        connection, stream_id = self._connection.connection, stream.id
        if self._connection.processor.streams.pop(stream_id, None) is None or connection.is_closing():
            return
        stream.body.clear()
        h2 = self._connection.h2
        kept = h2.streams.get(stream_id)
        if kept is not None and not kept.closed:  # the caller still sends: it need not (RFC 9113 8.1)
            with contextlib.suppress(ProtocolError):
                h2.reset_stream(
                    stream_id, ErrorCodes.NO_ERROR if kept.state_machine.headers_sent else ErrorCodes.CANCEL
                )
                connection.flush()
        h2.forget(stream_id)

    def _take(self, stream: _ServedStream) -> None:
        """Let the peer send as many bytes again as this call's message had."""
        self._connection.share.held_bytes -= stream.held_bytes
        size, stream.held_bytes, stream.unread = stream.unread, 0, 0
        if size and not self._connection.connection.is_closing():
            self._connection.h2.take(size)
            self._connection.connection.flush()

    def cancel(self, stream: H2Stream) -> None:
        """The caller gave up."""
        assert isinstance(stream, _ServedStream)
        if (task := self.tasks.get(stream)) is not None:
            task.cancel()
        else:
            self.release(stream)

    def close(self) -> None:
        """The connection is gone."""
        for task in list(self.tasks.values()):
            task.cancel()

    def forget_all(self) -> None:
        """Drop all calls that have not started."""
        for stream in [*self.streams]:
            self.release(stream)
        self._incomplete.clear()
        if self._timer is not None:
            self._timer.cancel()

    async def _answer(self, stream: _ServedStream) -> None:
        begun, code, element = monotonic(), CANCELED, ""
        try:
            try:
                await self._dispatch(stream)
                code = OK
            except MeshError as error:
                code, element = error.code_name, _PEER if error.hops else error.element
                error.passed(self._server.name)
                _count(error)
                await _fail(stream, error)
            except Exception as error:
                code = Internal("").code_name
                log_defect(f"{stream.fields.get(':path')} failed", self._server.name, error)
                await _fail(stream, Internal(f"{self._server.name}: unexpected {type(error).__name__}"))
        except (ProtocolError, StreamTerminatedError, OSError):
            log.debug("the caller left before it received the answer", method=stream.fields.get(":path"))
        finally:
            path = stream.fields[":path"].lstrip("/")
            counts.CALLS.add(path, code, element)
            if isinstance(stream.method, Unary):
                counts.CALL_SECONDS.observe(monotonic() - begun, path)

    async def _dispatch(self, stream: _ServedStream) -> None:
        headers, method, connection = stream.fields, stream.method, self._connection
        inbox = connection.files.inbox if connection.files else None
        incoming = Incoming(connection.peer, headers, stream.deadline, inbox, connection.credentials)
        try:
            async with asyncio.timeout_at(incoming.deadline):
                if tracing.hooks is None or not isinstance(method, Unary):
                    await self._call(stream, method, incoming)
                else:
                    with tracing.hooks.server(headers[":path"], headers):
                        await self._call(stream, method, incoming)
        except TimeoutError:
            raise TimedOut("the deadline of the call passed") from None

    async def _call(self, stream: _ServedStream, method: Method, incoming: Incoming) -> None:
        if isinstance(method, Conversing):
            assert stream.inflow is not None
            await self._stream(stream, method.answer(stream.inflow.messages(method.kind), incoming), incoming)
            return
        data = stream.message()
        self._take(stream)
        try:
            message = codec.decode(method.kind, data)
        except codec.DecodeError as error:
            raise InvalidRequest(str(error)) from None
        stream.body.clear()
        incoming.size = len(data)
        if isinstance(method, Unary):
            stream.is_read = True
            answer = await method.settled(message, incoming)
            try:
                await self._send_answer(stream, answer, incoming)
            except BaseException:
                if incoming.not_delivered is not None:
                    incoming.not_delivered()
                raise
        else:
            await self._stream(stream, method.answer(message, incoming), incoming)

    def _settle_unread(self, stream: _ServedStream) -> None:
        """A call ends without having been handled: the files that its message names are not taken any more."""
        method, files = stream.method, self._connection.files
        if not isinstance(method, Unary) or method.files is None or files is None or not files.inbox:
            return
        with contextlib.suppress(MeshError, codec.DecodeError):
            for key in [*method.files(codec.decode(method.kind, stream.message()))]:
                files.inbox.settle(*key)

    async def _send_answer(self, stream: _ServedStream, answer: Any, incoming: Incoming) -> None:
        headers = [*_OK_HEADERS, *incoming.headers]
        self._check_size(headers)
        self._send_files(incoming)
        body, share = frame(answer), self._connection.share
        share.unread += len(body)
        try:
            await write_all(stream, headers, body, _OK_TRAILERS)
        finally:
            share.has_written(len(body))
        if incoming.not_delivered is not None and self._connection.says_goodbye(stream):
            self._connection.unread_answers.append((monotonic(), incoming.not_delivered))

    async def _stream(self, stream: H2Stream, batches: AsyncIterator[Sequence[Any]], incoming: Incoming) -> None:
        started, share = False, self._connection.share
        async with contextlib.aclosing(batches) as answers:  # type: ignore[type-var]
            async for batch in answers:
                if not started:
                    await self._start_stream(stream, incoming)
                    started = True
                else:
                    await share.turn_to_tell()
                self._send_files(incoming)
                for piece in pieces(batch):
                    share.unread += len(piece)
                    try:
                        await stream.send_data(piece)
                    finally:
                        share.has_written(len(piece))
                    self._connection.h2.spend(-2)  # the peer may acknowledge it
        if not started:
            await self._start_stream(stream, incoming)
        await stream.send_headers(_OK_TRAILERS, end_stream=True)

    async def _start_stream(self, stream: H2Stream, incoming: Incoming) -> None:
        headers = [*_OK_HEADERS, *incoming.headers]
        self._check_size(headers)
        await stream.send_headers(headers)

    def _check_size(self, headers: Headers) -> None:
        if len(headers) > len(_OK_HEADERS) and size_of(headers) > self._connection.h2.longest_headers:
            raise Internal("the metadata of the answer is longer than the caller accepts")

    def _send_files(self, incoming: Incoming) -> None:
        files = self._connection.files
        if files is not None:
            for path in incoming.files:
                files.send_file(path)
        incoming.files.clear()


def _place(peername: Any, sock: socket.socket) -> dict[str, Any]:
    """The peer's address: its IP address, or on a unix socket whether it is in our network namespace."""
    if isinstance(peername, tuple):
        return {"address": str(peername[0])}
    with contextlib.closing(credentials_of(sock)) as caller:
        network = _network_of(caller.pid)
        is_near = network is not None and network == _network_of("self")
        return {"address": "", "is_near": is_near and caller.is_alive()}


def _network_of(process: int | str) -> tuple[int, int] | None:
    """The network namespace of a process; None if we may not see that."""
    try:
        status = os.stat(f"/proc/{process}/ns/net")
    except OSError:
        return None
    return status.st_dev, status.st_ino


_OK_HEADERS: Headers = [(":status", "200"), ("content-type", CONTENT_TYPE)]
_OK_TRAILERS: Headers = [("grpc-status", "0")]


def _longest(limits: Limits, name: str) -> int:
    """Bytes of a message; one with a record has room for additions by managers on its way."""
    size: int = getattr(limits, name)
    return 2 * size if name == "record_bytes" else size


def _deadline(timeout: str | None) -> float | None:
    if timeout is None:
        return None
    if (match := _TIMEOUT.fullmatch(timeout)) is None:
        raise InvalidRequest(f"the header grpc-timeout {cut(timeout, 32)!r} cannot be read")
    seconds = min(int(match[1]) * _SECONDS[match[2]], _LONGEST_DEADLINE)
    return asyncio.get_running_loop().time() + seconds


def _status(error: MeshError, longest: int) -> Headers:
    """The trailers with `error`, of at most about `longest` bytes."""
    text = encode_grpc_message(str(error))
    if len(text) > longest - 256:
        text = encode_grpc_message(cut(str(error), max(longest - 256, 64) // _PER_CHARACTER))
    said = [("grpc-status", str(error.code)), ("grpc-message", text)]
    if error.retry_after is not None:
        said.append((PUSHBACK, str(int(error.retry_after * 1000))))
    details = details_of(error)
    if len(text) + sum(len(value) for _, value in details) <= longest - 512:
        said += details
    return said


def _come_again() -> float:
    """Seconds until a call that was refused for lack of capacity is tried again, spread at random."""
    return uniform(_SOON, 3 * _SOON)  # noqa: S311 - no secret


_SOON = 0.5
_PEER = "peer"
"""In the place of an element, in counts of errors that were raised behind this component."""


_PER_CHARACTER = 12
"""Bytes of a character in a header at most: four, each of them as ``%XX``."""


def _count(error: MeshError) -> None:
    if error.limit:
        counts.LIMITS.add(error.limit)


async def _fail(stream: _ServedStream, error: MeshError) -> None:
    if not stream.closable:
        return
    h2 = stream._h2_connection
    begun, status = h2.streams[stream.id].state_machine.headers_sent, _status(error, h2.longest_headers)  # type: ignore[attr-defined]
    await stream.send_headers(status if begun else [*_OK_HEADERS, *status], end_stream=True)
