"""Sends one query to one server: over UDP, and over TCP if that yields no or a truncated answer."""

from __future__ import annotations

import asyncio
import struct

import dns.exception
import dns.flags
import dns.message

PORT = 53
TRIES = (1.0, 1.5)
"""Seconds to wait for the answer to each datagram, before TCP is tried."""
_LENGTH = struct.Struct("!H")


async def exchange(message: dns.message.Message, server: str, port: int = PORT) -> dns.message.Message:
    """Query `server`; the caller sets the timeout (`asyncio.timeout`).

    Raises OSError if the server is unreachable, ValueError if its response does not answer this query.
    """
    wire = message.to_wire()
    try:
        answer = await _by_datagram(message, wire, server, port)
    except OSError:
        answer = None
    if answer is None or answer.flags & dns.flags.TC:
        return await _by_stream(message, wire, server, port)
    return answer


class _Datagrams(asyncio.DatagramProtocol):
    """Waits for the answer to one message; ignores anything else, whoever sent it."""

    def __init__(self, message: dns.message.Message) -> None:
        self._message = message
        self.answer: asyncio.Future[dns.message.Message] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _address: object) -> None:
        """Accept the first matching answer."""
        answer = _read(data, self._message)
        if answer is not None and not self.answer.done():
            self.answer.set_result(answer)

    def error_received(self, error: Exception) -> None:
        """Nothing listens there."""
        if not self.answer.done():
            self.answer.set_exception(error)


async def _by_datagram(message: dns.message.Message, wire: bytes, server: str, port: int) -> dns.message.Message | None:
    """The answer, or None if none comes. Raises OSError."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(message), remote_addr=(server, port))
    try:
        for patience in TRIES:
            transport.sendto(wire)
            await asyncio.wait([protocol.answer], timeout=patience)
            if protocol.answer.done():
                return protocol.answer.result()
        return None
    finally:
        protocol.answer.cancel()
        transport.close()


async def _by_stream(message: dns.message.Message, wire: bytes, server: str, port: int) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(_LENGTH.pack(len(wire)) + wire)
        data = await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])
    except asyncio.IncompleteReadError:
        raise ConnectionResetError(f"{server} closed the stream") from None
    finally:
        writer.close()
    answer = _read(data, message)
    if answer is None:
        raise ValueError(f"the response of {server} is not an answer to the query")
    return answer


def _read(data: bytes, message: dns.message.Message) -> dns.message.Message | None:
    """The answer to `message` in `data`, or None."""
    try:
        answer = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return answer if message.is_response(answer) else None
