"""Shared by client and server: gRPC's framing of messages, headers, and one HTTP/2 stream as a single wait."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from grpclib.config import Configuration
from grpclib.protocol import Connection
from grpclib.protocol import Stream as H2Stream
from h2.exceptions import StreamClosedError

from nsm.apis import codec
from nsm.chains.core import TRANSPORT, Internal, MeshError, Unavailable
from nsm.chains.model.denied import denied

Headers = list[tuple[str, str]]

CONTENT_TYPE = "application/grpc"
USER_AGENT = "nsm-python"
PUSHBACK = "grpc-retry-pushback-ms"
"""With an error: milliseconds after which the call may be tried again (gRPC's proposal A6)."""
MAX_METADATA = 64 * 1024
"""Bytes of headers that we send or accept on one stream: names, values, and 32 for each."""
PER_HEADER = 32

CONFIGURATION = Configuration()
"""No HTTP/2 pings: grpc-go's servers treat them as abuse. TCP's own keepalive notices a peer that is gone."""


def frame(message: Any) -> bytes:
    """A message with gRPC's prefix: not compressed, four bytes of length."""
    data = codec.encode(message)
    return b"\0" + len(data).to_bytes(4, "big") + data


def pieces(messages: Iterable[Any]) -> Iterator[bytes]:
    """Several messages, each with its prefix, joined to pieces of moderate size; made on demand."""
    piece: list[bytes] = []
    size = 0
    for message in messages:
        piece.append(frame(message))
        size += len(piece[-1])
        if size >= _PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


LEFT_OUT = bytes(memoryview(b"left out"))
"""Stands, itself, for a message that was too long."""
_MOST_LEFT_OUT = 64 * 1024 * 1024
_PIECE = 64 * 1024


async def read_frame(stream: H2Stream, longest: int) -> bytes | None:
    """The next message's bytes, or None at the end of the stream. Raises `Internal` for a malformed frame.

    A message of more than `longest` bytes is read and dropped, piece by piece, and `LEFT_OUT` stands for it: a watch
    continues with the next one.
    """
    try:
        prefix = await stream.recv_data(5)
    except AssertionError:
        raise Internal("the peer ended the stream in the middle of a message's length") from None
    if not prefix:
        return None
    size = int.from_bytes(prefix[1:], "big")
    if prefix[0]:
        raise Internal("the peer compressed a message, which was not agreed")
    if size > _MOST_LEFT_OUT:
        raise Internal(f"the peer sent a message of {size} bytes; the limit is {longest}", limit="answer")
    if size > longest:
        await _drop(stream, size)
        return LEFT_OUT
    try:
        data = await stream.recv_data(size)
    except AssertionError:  # grpclib's error for less than that
        data = b""
    if len(data) != size:
        raise Internal("the peer ended the stream in the middle of a message")
    return data


async def _drop(stream: H2Stream, size: int) -> None:
    while size:
        try:
            dropped = len(await stream.recv_data(min(size, _PIECE)))
        except AssertionError:  # as above
            dropped = 0
        if not dropped:
            raise Internal("the peer ended the stream in the middle of a message")
        size -= dropped


def only_message(data: bytes) -> bytes:
    """The one message of a unary answer. Raises `Internal`."""
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise Internal("the peer's answer is not one gRPC message")
    return data[5:]


class Inflow:
    """The unread data of one stream: grpclib's buffer, at no cost for each piece that arrives."""

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge, self._data = acknowledge, bytearray()
        self._unread, self._has_ended = 0, False
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """The number of bytes that can be read now."""
        return len(self._data)

    def add(self, data: bytes, ack_size: int) -> None:
        """Data arrived, which with its padding uses `ack_size` bytes of the peer's window."""
        self._data += data
        self._unread += ack_size
        self._wake()

    def eof(self) -> None:
        """No further data will arrive."""
        self._has_ended = True
        self._wake()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes; none at the end. Raises AssertionError if the data ends before that."""
        while True:
            self._acknowledge(self.unacked_size())
            if len(self._data) >= size:
                break
            if self._has_ended:
                assert not self._data, "the data ended in the middle"
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = bytes(memoryview(self._data)[:size])
        del self._data[:size]
        return piece

    def unacked_size(self) -> int:
        """The bytes that were read and not acknowledged to the peer yet; returned once."""
        size, self._unread = self._unread, 0
        return size

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class CallStream(H2Stream):
    """An HTTP/2 stream whose end, and whose failure, can be awaited as one.

    `longest` is the number of bytes that may arrive in all, 0 if each message has a limit of its own.
    """

    def __init__(self, connection: Connection, target: str, longest: int) -> None:
        super().__init__(connection, connection._connection, connection._transport)
        self._target, self.longest = target, longest
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        """The stream gets its number."""
        super().init_stream(stream_id, connection)
        self.buffer = Inflow(partial(connection.ack, stream_id))  # type: ignore[assignment]  # the same to its users

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send as fast as the peer reads. Raises `StreamClosedError` once the peer has sent its whole answer."""
        connection, h2, view, sent = self.connection, self._h2_connection, memoryview(data), 0
        assert self.id is not None
        while sent < len(view):
            await connection.write_ready.wait()
            if self.ended.done():
                raise StreamClosedError(self.id)
            window = h2.local_flow_control_window(self.id)
            if window <= 0:
                self.window_updated.clear()
                await self.window_updated.wait()
                continue
            chunk = view[sent : sent + min(window, h2.max_outbound_frame_size)]
            sent += len(chunk)
            h2.send_data(self.id, bytes(chunk), end_stream=end_stream and sent == len(view))
            self._transport.write(h2.data_to_send())

    def begin(self, headers: Headers) -> None:
        """Send the headers; messages follow."""
        assert self.id is not None
        self._h2_connection.send_headers(self.id, headers)
        self._transport.write(self._h2_connection.data_to_send())

    def fail(self, error: MeshError) -> None:
        """End it with `error`."""
        self.buffer.eof()
        self.window_updated.set()
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()

    def __ended__(self) -> None:
        """The peer finished."""
        super().__ended__()
        self.window_updated.set()
        if not self.ended.done():
            self.ended.set_result(None)

    def __terminated__(self, reason: str) -> None:
        """The stream or its connection broke."""
        self.fail(Unavailable(f"{self._target} went away: {reason}"))
        self.headers_received.set()

    @property
    def is_open(self) -> bool:
        """Whether neither the peer nor the network has ended it."""
        return not self.ended.done() or self.ended.cancelled()


def size_of(headers: Headers) -> int:
    """The size of `headers`: names, values, and 32 for each (RFC 9113 10.5.1)."""
    return sum([len(name) + len(value) for name, value in headers]) + PER_HEADER * len(headers)


async def write_all(stream: H2Stream, headers: Headers, body: bytes, trailers: Headers | None = None) -> None:
    """Write headers, body and the end of the stream: in one go if flow control allows it."""
    h2, stream_id = stream._h2_connection, stream.id
    assert stream_id is not None
    h2.send_headers(stream_id, headers)
    if len(body) <= min(h2.max_outbound_frame_size, h2.local_flow_control_window(stream_id)):
        h2.send_data(stream_id, body, end_stream=trailers is None)
        if trailers is not None:
            h2.send_headers(stream_id, trailers, end_stream=True)
        stream._transport.write(h2.data_to_send())
        return
    stream._transport.write(h2.data_to_send())
    await stream.send_data(body, end_stream=trailers is None)
    if trailers is not None:
        await stream.send_headers(trailers, end_stream=True)


def not_reached(error: OSError | TimeoutError, target: str) -> Unavailable:
    """The error for a failure to connect to `target`."""
    barred = denied(target.removeprefix("unix://")) if isinstance(error, PermissionError) else ""
    return Unavailable(f"cannot reach {target}: {_why(error)}{barred and f': {barred}'}")


def _why(error: OSError | TimeoutError) -> str:
    """The system's own text if there is an error number: asyncio's texts repeat the address, which is in `target`."""
    if isinstance(error, TimeoutError):
        return "it did not answer"
    if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def peer_broke(error: BaseException, target: str) -> MeshError:
    """The error for a network failure during a call to `target`."""
    if isinstance(error, MeshError):
        return error
    reason = str(error) or type(error).__name__
    return Unavailable(f"{target} does not answer: {reason}", element=TRANSPORT)
