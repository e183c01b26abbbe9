"""A DNS server on one address, over UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from nsm.chains.core import Tasks
from nsm.chains.logs import log

from .query import Answer, Query, Rest, failure

PATIENCE = 5.0
"""The timeout of one query in seconds; a C library's resolver does not wait longer."""
MOST_QUESTIONS, MOST_STREAMS = 256, 64
"""Concurrent queries; more datagrams are dropped, and streams closed."""
IDLE = 10.0
"""Seconds that a stream may be idle."""
_TRIES = 10
_LENGTH = struct.Struct("!H")
_SMALLEST = 512


@asynccontextmanager
async def listening(host: str, port: int, answer: Rest) -> AsyncIterator[int]:
    """Serve `answer`; yields the port, chosen freely if `port` is 0. Raises OSError if it cannot listen."""
    async with Tasks("local DNS server") as questions:
        transport, server = await _bound(host, port, answer, questions, tries=1 if port else _TRIES)
        try:
            yield transport.get_extra_info("sockname")[1]
        finally:
            server.close()
            transport.close()


async def _bound(
    host: str, port: int, answer: Rest, questions: Tasks, tries: int
) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
    """Bind one port for UDP and TCP: one that is free for UDP may be in use for TCP."""
    loop, streams = asyncio.get_running_loop(), _Streams(answer, questions)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(answer, questions), local_addr=(host, port))
    try:
        return transport, await asyncio.start_server(streams.accept, host, transport.get_extra_info("sockname")[1])
    except BaseException as error:
        transport.close()
        if tries == 1 or not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
            raise
    return await _bound(host, port, answer, questions, tries - 1)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Rest, questions: Tasks) -> None:
        self._answer, self._questions = answer, questions
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        if len(self._questions) < MOST_QUESTIONS:
            self._questions.spawn(self._serve(data, address), name="question")

    async def _serve(self, data: bytes, address: Any) -> None:
        reply = await reply_to(data, self._answer, largest=_largest)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, address)


class _Streams:
    def __init__(self, answer: Rest, questions: Tasks) -> None:
        self._answer, self._questions, self._open = answer, questions, 0

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MOST_STREAMS:
            writer.close()
            return
        self._open += 1
        self._questions.spawn(self._serve(reader, writer), name="stream of questions")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                while True:
                    data = await asyncio.wait_for(_framed(reader), IDLE)
                    reply = await reply_to(data, self._answer, largest=_whole)
                    if reply is None:
                        return
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    await asyncio.wait_for(writer.drain(), IDLE)
        finally:
            self._open -= 1
            writer.close()


async def _framed(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])


def _largest(message: dns.message.Message) -> int:
    """The largest datagram, in bytes, that the client accepts."""
    return max(_SMALLEST, message.payload) if message.edns >= 0 else _SMALLEST


def _whole(_message: dns.message.Message) -> int:
    return 65535


async def reply_to(data: bytes, answer: Rest, *, largest: Callable[[dns.message.Message], int]) -> bytes | None:
    """The response to a message; None if it is not a query and must not be answered."""
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        return None
    if message.flags & dns.flags.QR:
        return None
    return _packed(await _answered(message, answer), largest(message))


async def _answered(message: dns.message.Message, answer: Rest) -> Answer:
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer(Query(message))
    except TimeoutError:
        return failure(message, dns.rcode.SERVFAIL)
    except Exception:
        log.exception("a query could not be answered")
        return failure(message, dns.rcode.SERVFAIL)


def _packed(answer: Answer, largest: int) -> bytes:
    """Encode an answer; if it is too long for a datagram, truncate it, so that the client retries over TCP."""
    return answer.to_wire(max_size=largest, prefer_truncation=True)
