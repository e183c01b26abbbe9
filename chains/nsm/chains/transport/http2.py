"""HTTP/2 with peers that may be hostile: a peer's frames cost this process little, and never the other peers' time.

| a peer | result |
| --- | --- |
| opens more streams than it may | those are refused, one by one; the connection goes on |
| sends frames that carry no call (pings, resets, tiny data) | it has a budget for them, refilled over time |
| sends more than can be handled in a moment | the rest waits for its turn, and is not read from the socket |
| does not read its answers | the connection ends when too much waits for it |
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar

from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol, _set_nodelay
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.events import (
    AlternativeServiceAvailable,
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    UnknownFrameReceived,
    WindowUpdated,
)
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameTooLargeError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
    TooManyStreamsError,
)
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamInputs
from hyperframe.exceptions import InvalidPaddingError
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from nsm.chains.core import counts
from nsm.chains.core.tasks import log_defect

from .frames import CONFIGURATION, MAX_METADATA
from .headers import Decoder, Encoder
from .released import RELEASED
from .turns import Share

SLICE = 0.002
"""Seconds that one peer's frames are handled before others get their turn."""
_MOST_UNREAD = 4 * 1024 * 1024
"""Bytes that may wait for a peer that does not read."""
_BEFORE_SETTINGS = 100
"""Streams that we open before the peer has announced its limit, as grpc-go does."""
_BLOCK = 4 * MAX_METADATA
"""Bytes of headers that are still read to the end: more than `MAX_METADATA` fails a call, more than this ends all."""
_TABLE = 4096
"""Bytes of the table that compresses our headers, even if the peer allows more."""
_EARNED_BY_CALL, _COST_OF_RESET = 4, 5
_LAST_STREAM = 2**31 - 1
_SMALL = {False: 256, True: 5}
"""Bytes below which a frame of data costs something: of a caller, and of a peer that answers (see `Http2._cost`)."""


_HEAD = struct.Struct(">HBBBL")
"""The first nine bytes of a frame: its size in two parts, type, flags, stream."""
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_STREAM, _END_HEADERS = 1, 4
_NO_FLAG, _STREAM_ENDS, _HEADERS_END = frozenset[str](), frozenset({"END_STREAM"}), frozenset({"END_HEADERS"})
_PLAIN: Mapping[tuple[int, int], tuple[type[DataFrame | HeadersFrame], frozenset[str]]] = {
    (_DATA, 0): (DataFrame, _NO_FLAG),
    (_DATA, _END_STREAM): (DataFrame, _STREAM_ENDS),
    (_HEADERS, _END_HEADERS): (HeadersFrame, _HEADERS_END),
    (_HEADERS, _END_HEADERS | _END_STREAM): (HeadersFrame, _HEADERS_END | _STREAM_ENDS),
}
"""Nearly all frames, without padding or priority, by type and flags."""


class Http2(H2Connection):
    """h2's connection with limits: on streams, on the memory for each, and on frames that carry no call.

    Frames that carry calls are written and read here, in a fraction of the time that h2 and hyperframe take; their
    effects on streams and windows are left to h2.
    """

    MAX_CLOSED_STREAMS = 1024

    def __init__(self, config: H2Configuration, *, streams: int, frames: int, window: int) -> None:
        super().__init__(config)
        del self._frame_dispatch_table  # with `_RECEIVERS` for all, a connection is a kilobyte smaller
        self.goes_away: Callable[[GoAwayFrame], Any] | None = None
        """Called, instead of ending all streams, if the peer announces a regular end."""
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_METADATA,
            SettingCodes.INITIAL_WINDOW_SIZE: window,
            SettingCodes.ENABLE_PUSH: 0,
        }
        before = {SettingCodes.MAX_CONCURRENT_STREAMS: _BEFORE_SETTINGS}
        self.local_settings = _settings(config.client_side, settings)
        self.remote_settings = _settings(not config.client_side, before)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_header_list_size = _BLOCK
        self._most_streams, self._is_client = streams, config.client_side
        self._store, self._most, self._refilled = float(frames), float(frames), monotonic()
        self._costs = _SMALL[bool(config.client_side)]

    @property
    def longest_headers(self) -> int:
        """Bytes of headers that the peer accepts: names, values, and 32 for each."""
        theirs = self.remote_settings.max_header_list_size
        return MAX_METADATA if theirs is None else min(theirs, MAX_METADATA)

    @property
    def has_frames(self) -> bool:
        """Whether a whole frame has arrived that was not handled yet."""
        data = self.incoming_buffer._data
        return len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big")

    def take_in(self, until: float) -> list[Event]:
        """Handle the frames that have arrived, until `until` (`time.monotonic`) has passed. Raises `ProtocolError`."""
        buffer, events = self.incoming_buffer, []
        buffer.max_frame_size = self.max_inbound_frame_size
        try:
            while (frame := self._next_frame()) is not None:
                if cost := self._cost(frame):
                    self.spend(cost)
                events += self._receive_frame(frame)
                if monotonic() > until:
                    break
            self._check_length()
        except InvalidPaddingError as error:
            self._terminate_connection(ErrorCodes.PROTOCOL_ERROR)
            raise ProtocolError("a frame with invalid padding") from error
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise
        return events

    def _next_frame(self) -> Frame | None:
        """The next complete frame, if one has arrived. Raises `ProtocolError`."""
        buffer = self.incoming_buffer
        data = buffer._data
        if len(data) < _HEAD.size:
            return None
        high, low, number, flags, stream_id = _HEAD.unpack_from(data)
        size, plain = high << 8 | low, _PLAIN.get((number, flags))
        if plain is None or buffer._headers_buffer or not 0 < stream_id <= _LAST_STREAM or size > buffer.max_frame_size:
            return next(buffer, None)
        end = _HEAD.size + size
        if len(data) < end:
            return None
        kind, names = plain
        frame = kind.__new__(kind)  # its constructor costs more than all of the rest here
        frame.stream_id, frame.flags, frame.body_len, frame.pad_length = stream_id, names, size, 0  # type: ignore[assignment]
        with memoryview(data) as view:
            frame.data = bytes(view[_HEAD.size : end])
        del data[:end]
        return frame

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """Like h2, which also formats each frame for a log that does not exist."""
        try:
            frames, events = _RECEIVERS[frame.__class__](self, frame)
        except (StreamClosedError, StreamIDTooLowError) as error:
            return self._closed_stream_is_used(error)
        self._prepare_for_sending(frames)
        return list(events)

    def _closed_stream_is_used(self, error: StreamClosedError | StreamIDTooLowError) -> list[Event]:
        """A stream that was reset is reset once more; using one that ended otherwise breaks the protocol."""
        if self._stream_is_closed_by_reset(error.stream_id):
            answer = RstStreamFrame(error.stream_id)
            answer.error_code = ErrorCodes.STREAM_CLOSED
            self._prepare_for_sending([answer])
            return list(getattr(error, "_events", ()))
        if isinstance(error, StreamIDTooLowError) and self._stream_is_closed_by_end(error.stream_id):
            raise StreamClosedError(error.stream_id) from error
        raise error

    def send_headers(self, stream_id: int, headers: Any, end_stream: bool = False) -> None:  # type: ignore[override]
        """Begin a stream with headers, or end it with them. A `grpc-timeout` has to be the last one."""
        if stream_id not in self.streams and len(self.streams) >= self.remote_settings.max_concurrent_streams:
            raise TooManyStreamsError(f"{len(self.streams)} streams are open")
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        state = self._get_or_create_stream(stream_id, AllowedStreamIDs(self._is_client)).state_machine
        state.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            state.process_input(StreamInputs.SEND_END_STREAM)
        block, most = self.encoder.encode(headers), self.max_outbound_frame_size
        kind, flags = _HEADERS, _END_STREAM if end_stream else 0
        while len(block) > most:
            self._write_frame(kind, flags, stream_id, block[:most])
            kind, flags, block = _CONTINUATION, 0, block[most:]
        self._write_frame(kind, flags | _END_HEADERS, stream_id, block)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:  # type: ignore[override]
        """Send a piece of data, as large as the windows and a frame allow at most."""
        size = len(data)
        if size > self.local_flow_control_window(stream_id) or size > self.max_outbound_frame_size:
            raise FlowControlError(f"{size} bytes are more than the peer accepts now")
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        stream = self.streams[stream_id]
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if end_stream:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        self._write_frame(_DATA, _END_STREAM if end_stream else 0, stream_id, data)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size

    def _write_frame(self, kind: int, flags: int, stream_id: int, body: bytes) -> None:
        size = len(body)
        self._data_to_send += _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id)
        self._data_to_send += body

    def take(self, size: int) -> None:
        """Let the peer send `size` bytes more on this connection; the windows of its streams stay unchanged."""
        if more := self._inbound_flow_control_window_manager.process_bytes(size):
            frame = WindowUpdateFrame(0)
            frame.window_increment = more
            self._prepare_for_sending([frame])

    def forget(self, stream_id: int) -> None:
        """Drop a stream that both sides have ended; otherwise h2 searches all of them for such."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            self._closed_streams[stream_id] = stream.closed_by

    def spend(self, cost: int) -> None:
        """Take `cost` frames from the peer's budget, or add some. Raises `DenialOfServiceError` if it is empty."""
        self._store = min(self._store - cost, self._most)
        if self._store >= 0:
            return
        now = monotonic()
        self._store = min(self._store + (now - self._refilled) * self._most / 10, self._most)
        self._refilled = now
        if self._store < 0:
            counts.LIMITS.add("frames")
            raise DenialOfServiceError("too many frames that carry no call")

    def _cost(self, frame: Frame) -> int:
        kind = frame.__class__
        if kind is DataFrame:
            return 1 if frame.body_len < self._costs and "END_STREAM" not in frame.flags else 0
        if kind is HeadersFrame:
            return -_EARNED_BY_CALL
        return _COST_OF_RESET if kind is RstStreamFrame else 1

    def _check_length(self) -> None:
        """Refuse a frame that is too long by its first bytes: h2 would wait for all of it."""
        data = self.incoming_buffer._data
        if len(data) >= 3 and int.from_bytes(data[:3], "big") > self.max_inbound_frame_size:
            raise FrameTooLargeError("a frame that is longer than was agreed")

    def _open_streams(self, remainder: int) -> int:
        return len(self.streams)  # those that are closed were dropped

    def _receive_headers_frame(self, frame: HeadersFrame) -> Any:
        if frame.stream_id not in self.streams and len(self.streams) >= self._most_streams and not self._is_client:
            return self._refuse(frame)
        return super()._receive_headers_frame(frame)

    def _refuse(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        """Refuse a stream above the limit: its caller may try again (RFC 9113 8.7)."""
        counts.LIMITS.add("streams")
        self.spend(_COST_OF_RESET)
        _decode_headers(self.decoder, frame.data)  # the tables of both sides have to stay the same
        events = self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        if frame.stream_id <= self.highest_inbound_stream_id or not frame.stream_id % 2:
            raise StreamIDTooLowError(frame.stream_id, self.highest_inbound_stream_id)
        self.highest_inbound_stream_id = frame.stream_id
        self._closed_streams[frame.stream_id] = StreamClosedBy.SEND_RST_STREAM
        answer = RstStreamFrame(frame.stream_id)
        answer.error_code = ErrorCodes.REFUSED_STREAM
        return [answer], events

    def _receive_settings_frame(self, frame: SettingsFrame) -> Any:
        if "ACK" not in frame.flags:
            known = {code: value for code, value in frame.settings.items() if code in _KNOWN}
            if SettingCodes.HEADER_TABLE_SIZE in known:
                known[SettingCodes.HEADER_TABLE_SIZE] = min(known[SettingCodes.HEADER_TABLE_SIZE], _TABLE)
            if self.remote_settings.max_concurrent_streams == _BEFORE_SETTINGS:
                known.setdefault(SettingCodes.MAX_CONCURRENT_STREAMS, 2**31 - 1)
            frame.settings = known
        return super()._receive_settings_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Any:
        if self.goes_away is not None and not frame.error_code:
            return self.goes_away(frame)
        return super()._receive_goaway_frame(frame)

    def _handle_data_on_closed_stream(self, events: Any, exc: Any, frame: DataFrame) -> Any:
        self.spend(1)
        return super()._handle_data_on_closed_stream(events, exc, frame)


_RECEIVERS: Mapping[type[Frame], Callable[[Http2, Any], Any]] = {
    HeadersFrame: Http2._receive_headers_frame,
    PushPromiseFrame: Http2._receive_push_promise_frame,
    SettingsFrame: Http2._receive_settings_frame,
    DataFrame: Http2._receive_data_frame,
    WindowUpdateFrame: Http2._receive_window_update_frame,
    PingFrame: Http2._receive_ping_frame,
    RstStreamFrame: Http2._receive_rst_stream_frame,
    PriorityFrame: Http2._receive_priority_frame,
    GoAwayFrame: Http2._receive_goaway_frame,
    ContinuationFrame: Http2._receive_naked_continuation,
    AltSvcFrame: Http2._receive_alt_svc_frame,
    ExtensionFrame: Http2._receive_unknown_frame,
}


def _settings(client: bool, values: dict[SettingCodes, int]) -> Settings:
    settings = Settings(client=client, initial_values=values)
    settings._settings = {code: _Values(each) for code, each in settings._settings.items()}  # type: ignore[misc]
    return settings


class _Values(list[int]):
    """The values of a setting, nearly always only one: h2's queue for them is ten times as large."""

    __slots__ = ()

    def popleft(self) -> int:
        """Remove the first."""
        return self.pop(0)


_KNOWN = frozenset(
    (
        SettingCodes.HEADER_TABLE_SIZE,
        SettingCodes.ENABLE_PUSH,
        SettingCodes.MAX_CONCURRENT_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE,
        SettingCodes.MAX_FRAME_SIZE,
        SettingCodes.MAX_HEADER_LIST_SIZE,
    )
)


class Events(EventsProcessor):
    """The effects of one connection's frames on calls."""

    _processors: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]]
    """For all connections of a class: grpclib's table of one connection takes two kilobytes."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._processors = _processors_of(cls)

    def __init__(self, handler: AbstractHandler, connection: Connection) -> None:
        self.handler, self.connection, self.streams = handler, connection, {}

    def process(self, event: Event) -> None:
        """Handle one event."""
        self._processors[event.__class__](self, event)

    def let_go(self) -> None:
        """Release the other parts of the connection, which refer to this: no further events arrive."""
        self.handler = _NOBODY

    def process_stream_ended(self, event: StreamEnded) -> None:
        """Drop the stream if we have ended it too."""
        super().process_stream_ended(event)
        self.connection._connection.forget(event.stream_id)  # type: ignore[attr-defined]

    def process_stream_reset(self, event: StreamReset) -> None:
        """Drop the stream."""
        super().process_stream_reset(event)
        self.connection._connection.forget(event.stream_id)  # type: ignore[attr-defined]


def _pass_over(_events: Events, _event: Event) -> None:
    """Do nothing."""


def _processors_of(kind: type[Events]) -> Mapping[type[Event], Callable[[Any, Any], None]]:
    return {
        RequestReceived: kind.process_request_received,
        ResponseReceived: kind.process_response_received,
        RemoteSettingsChanged: kind.process_remote_settings_changed,
        SettingsAcknowledged: kind.process_settings_acknowledged,
        DataReceived: kind.process_data_received,
        WindowUpdated: kind.process_window_updated,
        TrailersReceived: kind.process_trailers_received,
        StreamEnded: kind.process_stream_ended,
        StreamReset: kind.process_stream_reset,
        PriorityUpdated: kind.process_priority_updated,
        ConnectionTerminated: kind.process_connection_terminated,
        PingReceived: kind.process_ping_received,
        PingAckReceived: kind.process_ping_ack_received,
        # unknown to grpclib (RFC 9113 5.5, 8.1):
        InformationalResponseReceived: _pass_over,
        UnknownFrameReceived: _pass_over,
        AlternativeServiceAvailable: _pass_over,
    }


Events._processors = _processors_of(Events)


class _Nobody(AbstractHandler):
    """Handles no calls, since there are none."""

    connection_lost = True

    def accept(self, stream: Any, headers: Any, release_stream: Any) -> None:
        """Nothing is accepted."""

    def cancel(self, stream: Any) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""


_NOBODY = _Nobody()


class Http2Protocol(H2Protocol):
    """One connection. Its peer's share, once the peer is known, decides when its frames are handled."""

    share: Share
    h2: Http2
    processor: Events
    heard = pinged = 0.0
    """When something arrived last, and when a PING was sent (`time.monotonic`)."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        RELEASED.ended()

    def begin(
        self, transport: asyncio.Transport, *, streams: int, frames: int, window: int, stream_window: int
    ) -> None:
        """Send the preface of HTTP/2. `window` and `stream_window` are the bytes that the peer may send unasked."""
        if (sock := transport.get_extra_info("socket")) is not None:
            _set_nodelay(sock)
        self._is_waiting, self.heard = False, monotonic()
        self.h2 = Http2(self.h2_config, streams=streams, frames=frames, window=stream_window)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(window - 65535)
        self.connection = Connection(self.h2, transport, config=CONFIGURATION)
        self.connection.flush()
        self.processor = self.events()

    def events(self) -> Events:
        """The handler of this connection's events."""
        return Events(self.handler, self.connection)

    def data_received(self, data: bytes) -> None:
        """Handle the received frames, now or when it is this peer's turn."""
        if self.connection.is_closing():
            return
        try:
            self.h2.incoming_buffer.add_data(data)
        except ProtocolError as error:
            self.break_off(str(error))
            return
        if self._is_waiting:
            return
        if self.share.may_read():
            self._look()
        else:
            self._wait()

    def look_at_slice(self) -> None:
        """Continue where the last slice ended."""
        self._is_waiting = False
        if not self.connection.is_closing():
            self.connection._transport.resume_reading()
            self._look()

    @property
    def is_held_up(self) -> bool:
        """Whether it waits for its turn, or is about to end: nothing is read meanwhile."""
        return self._is_waiting or self.connection.is_closing()

    def ping(self) -> None:
        """Send a PING, which a peer that works answers at once."""
        with suppress(ProtocolError):
            self.h2.ping(b"respond?")
            self.connection.flush()

    def _wait(self) -> None:
        self._is_waiting = True
        self.connection._transport.pause_reading()
        self.share.read_later(self.look_at_slice)

    def _look(self) -> None:
        connection, processor = self.connection, self.processor
        self.heard = begun = monotonic()
        try:
            events = self.h2.take_in(begun + SLICE)
            connection.flush()
            for event in events:
                if connection.is_closing():
                    break
                processor.process(event)
            if connection.is_closing():
                return
            connection.flush()
        except ProtocolError as error:
            self.break_off(str(error))
            return
        except Exception as error:
            log_defect("a peer's frames cannot be read", "transport", error)
            self.break_off(type(error).__name__)
            return
        self.share.has_read(begun)
        if not connection.write_ready.is_set() and connection._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.abort("it does not read its answers")
        elif self.h2.has_frames:
            self._wait()

    def break_off(self, reason: str) -> None:
        """End the connection of a peer that broke the protocol, with the reason as far as it still reads."""
        if not self.connection.is_closing():
            with suppress(ProtocolError):
                self.connection.flush()
            self.processor.close(reason)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if not self.connection.is_closing():
            transport = self.connection._transport
            self.processor.close(reason)
            transport.abort()
