"""The programs that send and receive what `nsm measure` counts: ``python stream.py WHAT DESCRIPTOR SECONDS SIZE``.

Each is a process, so that sender and receiver do not share one interpreter; it gets a connected socket that was opened
in the namespace of its end, and prints one line of JSON. It starts in some 20 ms: it needs the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
import sys
import time
from typing import Any

CHUNK = 1 << 20
"""Bytes of one write."""
PATIENCE = 5.0
"""Seconds that a stream may stand still, and that a receiver waits for the first datagram."""
SILENCE = 0.5
"""Seconds without a datagram after which all have arrived."""
_MOST_SEGMENTS, _LONGEST, _BUFFER = 64, 65_000, 16 << 20
_UDP_SEGMENT, _UDP_GRO, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 103, 104, 32, 33
_SO_RCVTIMEO, _SO_SNDTIMEO = 20, 21
_RETRANSMISSIONS = 8 + 23 * 4
"""Where `tcpi_total_retrans` is in struct tcp_info (linux/tcp.h)."""


def send_stream(sock: socket.socket, seconds: float, _size: int) -> dict[str, Any]:
    """Send for `seconds`."""
    data, sent, end = memoryview(bytes(CHUNK)), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        sent += sock.send(data)
    information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (retransmissions,) = struct.unpack_from("=I", information, _RETRANSMISSIONS)
    sock.shutdown(socket.SHUT_WR)
    return {"bytes": sent, "retransmissions": retransmissions}


def receive_stream(sock: socket.socket, _seconds: float, _size: int) -> dict[str, Any]:
    """Receive until the end. The time is that from the first bytes to the last.

    The kernel discards the bytes without copying them (MSG_TRUNC, tcp(7)), so that the wire is measured, not memory.
    """
    buffer, received, began, last = bytearray(CHUNK), 0, 0.0, 0.0
    while count := sock.recv_into(buffer, CHUNK, socket.MSG_TRUNC):
        last = time.monotonic()
        began = began or last
        received += count
    return {"bytes": received, "seconds": last - began}


def send_datagrams(sock: socket.socket, seconds: float, size: int) -> dict[str, Any]:
    """Send datagrams of `size` bytes as fast as the kernel takes them, many with each call if it can cut them."""
    many = size * max(1, min(_MOST_SEGMENTS, _LONGEST // size))
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
    except OSError:
        many = size
    data, sent, end = memoryview(bytes(many)), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            sent += sock.send(data)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                continue
            if error.errno not in (errno.EIO, errno.EINVAL) or many == size:
                raise
            data = data[:size]  # the interface cannot cut them
            many = size
    return {"bytes": sent, "datagrams": sent // size}


def receive_datagrams(sock: socket.socket, _seconds: float, size: int) -> dict[str, Any]:
    """Receive until none comes any more. The time is that from the first to the last."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    buffer, received, began, last = bytearray(1 << 16), 0, 0.0, 0.0
    while True:
        try:
            received += sock.recv_into(buffer)
        except BlockingIOError:
            return {"bytes": received, "datagrams": received // size, "seconds": last - began}
        last = time.monotonic()
        if not began:
            began = last
            _limit(sock, SILENCE)


def _limit(sock: socket.socket, seconds: float) -> None:
    value = struct.pack("@qq", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDTIMEO, value)


PROGRAMS = {
    "send-stream": send_stream,
    "receive-stream": receive_stream,
    "send-datagrams": send_datagrams,
    "receive-datagrams": receive_datagrams,
}


def main(arguments: list[str]) -> int:
    """Run one program; a stream that breaks is a `fault`."""
    what, descriptor, seconds, size = arguments
    with socket.socket(fileno=int(descriptor)) as sock:
        _limit(sock, PATIENCE + (float(seconds) if what == "receive-datagrams" else 0.0))
        try:
            found = PROGRAMS[what](sock, float(seconds), int(size))
        except OSError as error:
            stands = isinstance(error, BlockingIOError)
            found = {"fault": f"no bytes pass for {PATIENCE:g} s" if stands else error.strerror or str(error)}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
