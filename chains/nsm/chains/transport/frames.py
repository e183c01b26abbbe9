"""What client and server share: gRPC's framing of messages, headers, and one HTTP/2 stream as a single wait."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from grpclib.config import Configuration
from grpclib.protocol import Connection, EventsProcessor
from grpclib.protocol import Stream as H2Stream
from h2.events import AlternativeServiceAvailable, InformationalResponseReceived, UnknownFrameReceived

from nsm.apis import codec
from nsm.chains.core import TRANSPORT, Internal, MeshError, Unavailable

Headers = list[tuple[str, str]]

CONTENT_TYPE = "application/grpc"
USER_AGENT = "nsm-python"
MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes; a longer message is refused, as grpc-go does by default."""
MAX_METADATA = 64 * 1024

CONFIGURATION = Configuration(
    http2_connection_window_size=16 * 1024 * 1024,
    http2_stream_window_size=4 * 1024 * 1024,
)
"""No HTTP/2 pings: grpc-go's servers take them for abuse. TCP's own keepalive notices a peer that is gone."""


def frame(message: Any) -> bytes:
    """A message with gRPC's prefix: not compressed, four bytes of length."""
    data = codec.encode(message)
    return b"\0" + len(data).to_bytes(4, "big") + data


def frames(messages: Iterable[Any]) -> bytes:
    """Several messages, each with its prefix."""
    return b"".join(map(frame, messages))


async def read_frame(stream: H2Stream) -> bytes | None:
    """The next message's bytes, or None at the end of the stream. Raises `Internal` for what is no frame."""
    try:
        prefix = await stream.recv_data(5)
    except AssertionError:
        raise Internal("the peer ended the stream in the middle of a message's length") from None
    if not prefix:
        return None
    size = int.from_bytes(prefix[1:], "big")
    if prefix[0]:
        raise Internal("the peer compressed a message, which was not agreed")
    if size > MAX_MESSAGE:
        raise Internal(f"the peer sent a message of {size} bytes; the limit is {MAX_MESSAGE}")
    try:
        data = await stream.recv_data(size)
    except AssertionError:  # grpclib's word for less than that
        data = b""
    if len(data) != size:
        raise Internal("the peer ended the stream in the middle of a message")
    return data


def only_message(data: bytes) -> bytes:
    """The one message of a unary answer. Raises `Internal`."""
    if len(data) < 5 or data[0] or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise Internal("the peer's answer is not one gRPC message")
    return data[5:]


class CallStream(H2Stream):
    """An HTTP/2 stream whose end, and whose failure, can be awaited as one."""

    def __init__(self, connection: Connection, target: str) -> None:
        super().__init__(connection, connection._connection, connection._transport)
        self._target = target
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __ended__(self) -> None:
        """The peer finished."""
        super().__ended__()
        if not self.ended.done():
            self.ended.set_result(None)

    def __terminated__(self, reason: str) -> None:
        """The stream or its connection broke."""
        self.buffer.eof()
        if not self.ended.done():
            self.ended.set_exception(Unavailable(f"{self._target} went away: {reason}"))
            self.ended.exception()
        self.headers_received.set()

    @property
    def is_open(self) -> bool:
        """Whether neither the peer nor the network has ended it."""
        return not self.ended.done() or self.ended.cancelled()


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


def pass_over_extensions(processor: EventsProcessor) -> None:
    """Let a peer say what grpclib knows nothing of: interim answers, frames of later kinds (RFC 9113 5.5, 8.1)."""
    for event in (InformationalResponseReceived, UnknownFrameReceived, AlternativeServiceAvailable):
        processor.processors[event] = lambda _event: None


def not_reached(error: OSError | TimeoutError, target: str) -> Unavailable:
    """What a failure to connect to `target` means."""
    return Unavailable(f"cannot reach {target}: {_why(error)}")


def _why(error: OSError | TimeoutError) -> str:
    """In the system's own words where it has a number for it: asyncio's name an address that is in `target`."""
    if isinstance(error, TimeoutError):
        return "it did not answer"
    if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def peer_broke(error: BaseException, target: str) -> MeshError:
    """What a failure of the network means for a call to `target`."""
    if isinstance(error, MeshError):
        return error
    reason = str(error) or type(error).__name__
    return Unavailable(f"{target} does not answer: {reason}", element=TRANSPORT)
