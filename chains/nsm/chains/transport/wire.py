"""An asyncio transport over a unix stream socket that carries descriptors beside the bytes.

It is below TLS: the n-th queued descriptor travels, alone in its SCM_RIGHTS message, with the n-th byte of the next
write, the last one with all the rest behind it, and the byte stream itself is unchanged. So either side may be a
program that does not know this protocol.

Closing a peer's descriptor may take any time, so the event loop's thread closes none (`disposal`), nor does it let the
kernel do so: the kernel closes descriptors that a read has no room for, and those left in a socket that is closed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import Any, cast

from nsm.chains.core import Limits

from .disposal import ANCILLARY, descriptors_in, dispose, hang_up, is_behind, peer_uid
from .giver import Giver
from .inbox import FileInbox, TooManyFiles, open_to_send
from .tls import Tls, read_buffer
from .turns import NOTHING, appended

_SO_PASSRIGHTS = 83
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024


class DescriptorTransport(asyncio.Transport):
    """Reads and writes one connected, non-blocking unix socket for an `asyncio.BufferedProtocol` (TLS).

    Received descriptors are in `inbox`; without one, a peer that sends any is disconnected.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BufferedProtocol,
        inbox: FileInbox | None,
    ) -> None:
        self.inbox = inbox
        super().__init__({"socket": sock})
        self._loop, self._sock, self._protocol = loop, sock, protocol
        self._outgoing: deque[int] = NOTHING
        self._buffer = bytearray()
        self._closing = self._paused = self._reading = self._is_lost = False
        self._limits = _LOW_WATER, _HIGH_WATER
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self.resume_reading)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of any transport; `descriptors` is this one itself, computed to avoid a reference cycle."""
        return self if name == "descriptors" else super().get_extra_info(name, default)

    def send_file(self, path: str) -> None:
        """Queue a descriptor of the file at `path` for the next write. Raises `InvalidRequest`."""
        self._outgoing = appended(self._outgoing, open_to_send(path))

    # --- reading

    def is_reading(self) -> bool:
        """Whether the socket is being read."""
        return self._reading

    def resume_reading(self) -> None:
        """Read from the socket again."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def pause_reading(self) -> None:
        """Let data wait in the socket."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def _readable(self) -> None:
        if self._closing:
            return
        if not (self.inbox is not None and self.inbox.is_verified) and is_behind(peer_uid(self._sock)):
            self._force_close(TooManyFiles("too many descriptors wait to be closed"))
            return
        try:
            buffer = self._protocol.get_buffer(-1)
            size, ancillary, _flags, _address = self._sock.recvmsg_into([buffer], ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._force_close(error)
            return
        if ancillary and not self._receive(descriptors_in(ancillary)):
            return
        try:
            if size:
                self._protocol.buffer_updated(size)
            else:
                self._end_of_file()
        except BaseException as error:
            self._force_close(error)
            raise

    def _receive(self, descriptors: list[int]) -> bool:
        """Put them into the inbox; returns whether the connection continues."""
        while descriptors:
            if self.inbox is None:
                dispose(descriptors, peer_uid(self._sock))
                self._force_close(TooManyFiles("descriptors are not accepted here"))
                return False
            try:
                self.inbox.arrived(descriptors.pop(0))
            except TooManyFiles as error:
                dispose(descriptors, peer_uid(self._sock))
                self._force_close(error)
                return False
        return True

    def _end_of_file(self) -> None:
        self.pause_reading()
        if not self._protocol.eof_received():
            self.close()

    # --- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` now as far as the socket accepts it, the rest when it can."""
        if not data or self._closing:
            return
        was_empty = not self._buffer
        self._buffer += data
        if was_empty:
            self._flush()

    def writelines(self, list_of_data: Any) -> None:
        """Write all of them at once."""
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        try:
            while self._outgoing and self._buffer:
                self._send_with_descriptor()
            if self._buffer:
                del self._buffer[: self._sock.send(self._buffer)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._force_close(error)
            return
        self._after_flush()

    def _send_with_descriptor(self) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._outgoing[0]]).tobytes())
        piece = self._buffer[:1] if len(self._outgoing) > 1 else self._buffer
        try:
            sent = self._sock.sendmsg([piece], [rights])
        except PermissionError:  # a peer that accepts none: it reports that when the message names it
            sent = self._sock.send(piece)
        del self._buffer[:sent]
        os.close(self._outgoing.popleft())

    def _after_flush(self) -> None:
        if self._buffer:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._sock.fileno())
            if self._closing:
                self._lost(None)
                return
        low, high = self._limits
        if len(self._buffer) > high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
        elif len(self._buffer) <= low and self._paused:
            self._paused = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """The number of bytes that wait to be written."""
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high mark, in bytes."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pause the protocol above `high` bytes, resume it below `low`."""
        top = _HIGH_WATER if high is None else high
        self._limits = (top // 4 if low is None else low), top

    def can_write_eof(self) -> bool:
        """TLS closes both directions at once."""
        return False

    # --- the end

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    def close(self) -> None:
        """Close when everything is written."""
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._buffer:
            self._loop.remove_writer(self._sock.fileno())
            self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        """Close now."""
        self._force_close(None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that is fed."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Feed another protocol."""
        self._protocol = cast(asyncio.BufferedProtocol, protocol)

    def _force_close(self, error: BaseException | None) -> None:
        if self._is_lost:
            return
        self.pause_reading()
        self._loop.remove_writer(self._sock.fileno())
        self._buffer.clear()
        self._closing = True
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: BaseException | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        try:
            self._protocol.connection_lost(cast("Exception | None", error))
        finally:
            self._protocol = _NOBODY
            hang_up(self._sock)
            if self.inbox is not None:
                self.inbox.close()
            while self._outgoing:
                os.close(self._outgoing.popleft())


async def start_tls(
    sock: socket.socket,
    protocol: asyncio.Protocol,
    context: Any,
    *,
    server_side: bool,
    handshake_timeout: float,
    limits: Limits | None = None,
    takes_descriptors: bool = True,
) -> None:
    """Run TLS for `protocol` over the connected unix socket `sock`, with descriptors below it.

    Returns after the handshake; raises its error, with the socket closed. `protocol` tells the inbox when it has
    verified the peer.
    """
    loop = asyncio.get_running_loop()
    tls = Tls(loop, protocol, context, server_side=server_side, handshake_timeout=handshake_timeout)
    giver = Giver(sock, accepted=server_side)
    inbox = FileInbox(giver, limits, is_verified=False) if takes_descriptors else None
    DescriptorTransport(loop, sock, tls, inbox)
    await tls.shake_hands()


def start_plain(sock: socket.socket, protocol: asyncio.Protocol) -> None:
    """Run `protocol` over the accepted unix socket `sock` as it is; a peer that sends descriptors is disconnected."""
    DescriptorTransport(asyncio.get_running_loop(), sock, _Plain(protocol), None)


def refuse_descriptors(listening: socket.socket) -> None:
    """Keep peers of a unix socket from sending descriptors, if the kernel supports it (Linux 6.16)."""
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


_NOBODY = asyncio.BufferedProtocol()


class _Plain(asyncio.BufferedProtocol):
    """Feeds a protocol that has no buffer of its own."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol, self._buffer = protocol, read_buffer()
        self.connection_made, self.connection_lost = protocol.connection_made, protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing, self.resume_writing = protocol.pause_writing, protocol.resume_writing  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(self._buffer[:nbytes]))
