"""Listens, shakes hands, verifies who calls, and hands calls to methods."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import select
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from grpclib.exceptions import StreamTerminatedError
from grpclib.metadata import decode_timeout, encode_grpc_message
from grpclib.protocol import AbstractHandler, H2Protocol
from grpclib.protocol import Stream as H2Stream
from h2.config import H2Configuration
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from nsm.apis import codec
from nsm.chains.core import Conflict, Internal, InvalidRequest, MeshError, Peer, Tasks, TimedOut, Unsupported, tracing
from nsm.chains.core.tasks import log_defect
from nsm.chains.identity import Identity
from nsm.chains.logs import log

from .channel import keep_alive
from .disposal import hang_up
from .frames import CONFIGURATION, CONTENT_TYPE, Headers, frame, frames, pass_over_extensions, read_frame, write_all
from .inbox import FileInbox
from .urls import Address, parse_address, publishable
from .wire import DescriptorTransport, refuse_descriptors, start_plain, start_tls

HANDSHAKE_TIMEOUT = 10.0
GRACE = 5.0
"""Seconds that calls may still take when the server stops."""
_BACKLOG = 1024
_ACCEPT_PAUSE = 0.5
"""Seconds to wait when there are no descriptors left to accept with."""
_LAST_STREAM = 2**31 - 1
_STREAMS = 1 << 20
"""Calls at once on one connection: a manager's clients share the one to its forwarder."""


@dataclass(slots=True)
class Incoming:
    """One call as it arrived: who, until when, with which metadata; and what goes back beside the message."""

    peer: Peer | None
    metadata: dict[str, str]
    deadline: float | None
    inbox: FileInbox | None
    credentials: Credentials | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Initial metadata of the answer."""
    files: list[str] = field(default_factory=list)
    """Paths of files whose descriptors go ahead of the answer."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel says of the process at the other end of a unix socket."""

    pid: int
    """As this process sees it; 0 if it cannot see the other one."""
    uid: int
    gid: int
    process: int | None = None
    """A descriptor of that very process (pidfd), open as long as the connection; None if it had ended already."""

    def is_alive(self) -> bool:
        """Whether that process has not ended yet: as long as it has not, its `pid` is nobody else's."""
        if self.process is None:
            return False
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the descriptor."""
        if self.process is not None:
            os.close(self.process)


@dataclass(frozen=True, slots=True)
class Unary:
    """A method that answers one message with one message."""

    kind: type[Any]
    answer: Callable[[Any, Incoming], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method that answers one message with batches of messages."""

    kind: type[Any]
    answer: Callable[[Any, Incoming], AsyncIterator[Sequence[Any]]]


Method = Unary | Streaming
Methods = Mapping[str, Method]
"""By path, such as ``/networkservice.NetworkService/Request``."""


class Listener(Protocol):
    """A place that is being listened on."""

    url: str


@dataclass(frozen=True, kw_only=True)
class SocketAccess:
    """Who may connect to a unix socket: its mode, and its group if that is not the process's own."""

    mode: int = 0o660
    group: str = ""


@asynccontextmanager
async def serve(
    urls: Sequence[str],
    methods: Methods,
    identity: Identity,
    *,
    name: str,
    access: SocketAccess | None = None,
    takes_descriptors: bool = True,
) -> AsyncIterator[list[str]]:
    """Serve `methods` on every one of `urls` over mTLS; gives the URLs as others can dial them.

    On unix sockets, a peer that sends descriptors is hung up on unless this `takes_descriptors`.

    Calls that run when the body ends get `GRACE` seconds. Raises `Conflict` if somebody listens there already,
    `InvalidRequest` for a bad URL. `name` is the hop that errors show.
    """
    server = Server(methods, identity, name, takes_descriptors=takes_descriptors)
    try:
        listening = [await server.listen(parse_address(url), access or SocketAccess()) for url in urls]
        yield listening
    finally:
        await server.stop(GRACE)


@asynccontextmanager
async def serve_plain(path: str, methods: Methods, *, name: str, access: SocketAccess) -> AsyncIterator[Server]:
    """Serve on a unix socket without TLS: for the Workload API, which is where identities come from, and the kubelet.

    Calls carry the kernel's `Credentials` of the caller instead of a verified peer.
    """
    server = Server(methods, None, name, takes_descriptors=False)
    try:
        await server.listen(Address(path=path), access)
        yield server
    finally:
        await server.stop(0)


class Server:
    """The listening sockets, the connections and the running calls of one component."""

    def __init__(
        self, methods: Methods, identity: Identity | None, name: str, *, takes_descriptors: bool = True
    ) -> None:
        self.methods, self.identity, self.name = methods, identity, name
        self._takes_descriptors = takes_descriptors
        self.calls = Tasks(f"server {name}")
        self._loop = asyncio.get_running_loop()
        self._sockets: list[tuple[socket.socket, Address]] = []
        self._shaking = Tasks(f"handshakes of {name}")
        self._accepted: set[socket.socket] = set()
        self.connections: set[_Connection] = set()
        self.admits: Callable[[Credentials], bool] | None = None
        """Whether a process may have one more connection here; asked where there is no TLS."""
        if identity is not None:
            identity.watchers.add(self._renew_connections)

    async def listen(self, address: Address, access: SocketAccess) -> str:
        """Listen on one more address; returns the URL that others can dial."""
        sock = _unix_socket(address.path, access) if address.is_unix else await _tcp_socket(self._loop, address)
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
        if self.identity is not None:
            self.identity.watchers.discard(self._renew_connections)
        await self._shaking.aclose()
        for sock in self._accepted:
            hang_up(sock)
        for connection in list(self.connections):
            connection.say_goodbye()
        running = [task for connection in self.connections for task in connection.finite_calls()]
        if running:
            await asyncio.wait(running, timeout=grace)
        await self.calls.aclose()
        for connection in list(self.connections):
            connection.end()
        await asyncio.sleep(0)

    def _renew_connections(self) -> None:
        """Have peers make new connections: those that they have ends with the SVID that was shown to them."""
        for connection in list(self.connections):
            connection.ask_to_leave()

    def _accept(self, listening: socket.socket, address: Address) -> None:
        for _ in range(_BACKLOG):
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
            self._accepted.add(sock)
            self._shaking.spawn(self._shake_hands(sock, address), name="handshake")

    def _accept_again(self, listening: socket.socket, address: Address) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening, address)

    async def _shake_hands(self, sock: socket.socket, address: Address) -> None:
        self._accepted.discard(sock)
        protocol = _Connection(self)
        try:
            if self.identity is None:
                start_plain(sock, protocol)
            elif address.is_unix:
                context, takes = self.identity.server_context(), self._takes_descriptors
                await start_tls(
                    sock,
                    protocol,
                    context,
                    server_side=True,
                    handshake_timeout=HANDSHAKE_TIMEOUT,
                    takes_descriptors=takes,
                )
            else:
                keep_alive(sock)
                context = self.identity.server_context()
                await self._loop.connect_accepted_socket(
                    lambda: protocol, sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
                )
        except (OSError, MeshError, TimeoutError) as error:
            hang_up(sock)
            log.warning("a peer was refused", on=str(address), error=str(error) or type(error).__name__)


class _Connection(H2Protocol):
    """One peer's connection: who it is, and the calls on it."""

    def __init__(self, server: Server) -> None:
        self._calls = _Calls(server, self)
        super().__init__(self._calls, CONFIGURATION.__for_server__(), _H2_CONFIGURATION)
        self._server = server
        self.peer: Peer | None = None
        self.credentials: Credentials | None = None
        self.files: DescriptorTransport | None = None

    def calls(self) -> list[asyncio.Task[None]]:
        """The calls that run."""
        return list(self._calls.running.values())

    def finite_calls(self) -> list[asyncio.Task[None]]:
        """Those that end by themselves."""
        return [task for stream, task in self._calls.running.items() if stream not in self._calls.streaming]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        identity = self._server.identity
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS})
        self.connection.flush()
        self.files = transport.get_extra_info("descriptors")
        pass_over_extensions(self.processor)
        self._server.connections.add(self)
        if identity is None:
            self.credentials = _credentials(transport.get_extra_info("socket"))
            if self._server.admits is not None and not self._server.admits(self.credentials):
                transport.abort()
            return
        try:
            peer = identity.verify(transport.get_extra_info("ssl_object"))
        except MeshError as error:
            log.warning("a peer was refused", error=str(error))
            transport.abort()
            return
        self.peer = replace(peer, address=_address(transport.get_extra_info("peername")))
        if self.files is not None and self.files.inbox is not None:
            self.files.inbox.verified()
        if peer.seen is not identity.svid:
            self.ask_to_leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connections.discard(self)
        super().connection_lost(exc)
        if self.credentials is not None:
            self.credentials.close()

    def say_goodbye(self) -> None:
        """Tell a peer that waits for nothing to open no further streams here."""
        if not self.calls() and not self.connection.is_closing():
            with contextlib.suppress(ProtocolError):
                self.connection._connection.close_connection()
                self.connection.flush()

    def ask_to_leave(self) -> None:
        """Tell the peer to send new calls over a new connection; this one goes on until the peer ends it.

        The frame passes by h2, for which it would be the end of everything.
        """
        if not self.connection.is_closing():
            self.connection.flush()
            self.connection._transport.write(GoAwayFrame(0, last_stream_id=_LAST_STREAM).serialize())

    def end(self) -> None:
        self.processor.close("the server stops")


_H2_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding="ascii",
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class _Calls(AbstractHandler):
    """The running calls of one connection, a task each."""

    def __init__(self, server: Server, connection: _Connection) -> None:
        self._server, self._connection = server, connection
        self.running: dict[H2Stream, asyncio.Task[None]] = {}
        self.streaming: set[H2Stream] = set()

    def accept(self, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]) -> None:
        fields = dict(headers)
        task = self._server.calls.spawn(self._answer(stream, fields, release_stream), name="call")
        self.running[stream] = task
        if isinstance(self._server.methods.get(fields.get(":path", "")), Streaming):
            self.streaming.add(stream)
        task.add_done_callback(lambda _: self._forget(stream))

    def _forget(self, stream: H2Stream) -> None:
        self.running.pop(stream, None)
        self.streaming.discard(stream)

    def cancel(self, stream: H2Stream) -> None:
        if (task := self.running.get(stream)) is not None:
            task.cancel()

    def close(self) -> None:
        for task in list(self.running.values()):
            task.cancel()

    async def _answer(self, stream: H2Stream, headers: dict[str, str], release: Callable[[], None]) -> None:
        try:
            try:
                await self._dispatch(stream, headers)
            except MeshError as error:
                error.passed(self._server.name)
                await _fail(stream, error)
            except Exception as error:
                log_defect(f"{headers.get(':path')} failed", self._server.name, error)
                await _fail(stream, Internal(f"{self._server.name}: unexpected {type(error).__name__}"))
        except (ProtocolError, StreamTerminatedError, OSError):
            log.debug("the caller went away before it was answered", method=headers.get(":path"))
        finally:
            if stream.id in self._connection.processor.streams:
                release()

    async def _dispatch(self, stream: H2Stream, headers: dict[str, str]) -> None:
        method = self._server.methods.get(headers.get(":path", ""))
        if method is None:
            raise Unsupported(f"there is no method {headers.get(':path')!r} here")
        if not headers.get("content-type", "").startswith(CONTENT_TYPE):
            raise InvalidRequest(f"content-type {headers.get('content-type')!r} is not {CONTENT_TYPE}")
        incoming = self._incoming(headers)
        try:
            async with asyncio.timeout_at(incoming.deadline):
                if tracing.hooks is None or isinstance(method, Streaming):
                    await self._call(stream, method, incoming)
                else:
                    with tracing.hooks.server(headers[":path"], headers):
                        await self._call(stream, method, incoming)
        except TimeoutError:
            raise TimedOut("the deadline of the call passed") from None

    def _incoming(self, headers: dict[str, str]) -> Incoming:
        timeout = headers.get("grpc-timeout")
        try:
            deadline = asyncio.get_running_loop().time() + decode_timeout(timeout) if timeout else None
        except ValueError:
            raise InvalidRequest(f"the header grpc-timeout {timeout!r} cannot be read") from None
        connection = self._connection
        inbox = connection.files.inbox if connection.files else None
        return Incoming(connection.peer, headers, deadline, inbox, connection.credentials)

    async def _call(self, stream: H2Stream, method: Method, incoming: Incoming) -> None:
        data = await read_frame(stream)
        if data is None:
            raise InvalidRequest("the call has no message")
        try:
            message = codec.decode(method.kind, data)
        except codec.DecodeError as error:
            raise InvalidRequest(str(error)) from None
        if isinstance(method, Unary):
            answer = await method.answer(message, incoming)
            self._send_files(incoming)
            await write_all(stream, [*_OK_HEADERS, *incoming.headers], frame(answer), _OK_TRAILERS)
        else:
            await self._stream(stream, method, message, incoming)

    async def _stream(self, stream: H2Stream, method: Streaming, message: Any, incoming: Incoming) -> None:
        started = False
        async with contextlib.aclosing(method.answer(message, incoming)) as answers:  # type: ignore[type-var]
            async for batch in answers:
                if not started:
                    await stream.send_headers([*_OK_HEADERS, *incoming.headers])
                    started = True
                self._send_files(incoming)
                if batch:  # grpclib takes an empty DATA frame for the end
                    await stream.send_data(frames(batch))
        if not started:
            await stream.send_headers([*_OK_HEADERS, *incoming.headers])
        await stream.send_headers(_OK_TRAILERS, end_stream=True)

    def _send_files(self, incoming: Incoming) -> None:
        files = self._connection.files
        if files is not None:
            for path in incoming.files:
                files.send_file(path)
        incoming.files.clear()


_OK_HEADERS: Headers = [(":status", "200"), ("content-type", CONTENT_TYPE)]
_OK_TRAILERS: Headers = [("grpc-status", "0")]


async def _fail(stream: H2Stream, error: MeshError) -> None:
    if not stream.closable:
        return
    trailers = [("grpc-status", str(error.code)), ("grpc-message", encode_grpc_message(str(error)))]
    assert stream.id is not None
    begun = stream._h2_connection.streams[stream.id].state_machine.headers_sent
    await stream.send_headers(trailers if begun else [*_OK_HEADERS, *trailers], end_stream=True)


def _address(peername: Any) -> str:
    """The IP address of a peer; empty on a unix socket."""
    return str(peername[0]) if isinstance(peername, tuple) else ""


def _credentials(sock: socket.socket) -> Credentials:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", raw)
    return Credentials(pid, uid, gid, _process(sock, pid))


def _process(sock: socket.socket, pid: int) -> int | None:
    """A descriptor of the process that connected, whatever its number means by now (SO_PEERPIDFD, Linux 6.5)."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    try:
        return os.pidfd_open(pid)  # who has the number now, a moment after it connected
    except OSError:
        return None


_SO_PEERPIDFD = 77


async def _tcp_socket(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    wanted = await loop.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = sorted(wanted, key=lambda info: info[0] != socket.AF_INET6)[0]
    if not address.host:
        family, place = socket.AF_INET6, ("::", address.port)
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise Conflict(f"cannot listen on {address}: {error.strerror}") from None
    return sock


def _unix_socket(path: str, access: SocketAccess) -> socket.socket:
    try:
        _remove_stale(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Conflict(f"cannot listen on unix://{path}: {error.strerror or error}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o777 & ~access.mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        if access.group:
            os.chown(path, -1, grp.getgrnam(access.group).gr_gid)
    except KeyError:
        sock.close()
        os.unlink(path)
        raise InvalidRequest(f"there is no group {access.group!r} to give {path} to") from None
    except OSError as error:
        sock.close()
        raise Conflict(f"cannot listen on unix://{path}: {error.strerror or error}") from None
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; anything else in the way is a conflict."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise Conflict(f"cannot listen on unix://{path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise Conflict(f"cannot listen on unix://{path}: somebody listens there already") from None
        else:
            raise Conflict(f"cannot listen on unix://{path}: somebody listens there already")
