"""What comes over a connection: messages, paths, tokens, descriptors, questions of DNS."""

import asyncio
import base64
import contextlib
import math
import os
import socket
import time
from array import array
from dataclasses import fields
from functools import cache

import dns.message
import dns.rcode
from betterproto2 import FieldMetadata, Message
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis import (
    codec,
    connection,
    connectioncontext,
    csi,
    health,
    ipam,
    networkservice,
    pluginregistration,
    registry,
    wellknown,
    workload,
)
from nsm.chains.core import InvalidRequest, MeshError, Peer, RegistryPath, file_key
from nsm.chains.errors import LONGEST_DETAIL, from_status
from nsm.chains.identity import Authority
from nsm.chains.policy import claims_of, is_signed_by
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport.inbox import FileInbox
from nsm.chains.transport.wire import DescriptorTransport
from nsm.services.dns.check_message import CheckMessage
from nsm.services.dns.exchange import _read as read_answer
from nsm.services.dns.query import as_answer_to, failure, listed
from nsm.services.dns.server import reply_to

from .target import Target, of_text, raises

_MODULES = (
    connection,
    connectioncontext,
    csi,
    health,
    ipam,
    networkservice,
    pluginregistration,
    registry,
    wellknown,
    workload,
)
MESSAGES = sorted(
    {
        kind
        for module in _MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    },
    key=lambda kind: kind.__name__,
)


# --- messages


def message(data):
    """The first byte says which kind of message the others are to be."""
    if data:
        decode(MESSAGES[data[0] % len(MESSAGES)], data[1:])


@raises(codec.DecodeError)
def _decoded(kind_and_data):
    return codec.decode(*kind_and_data)


def decode(kind, data):
    """What is read is written in no more bytes (but for defaults that are spelled out), and read again the same."""
    read = _decoded((kind, data))
    if read is None:
        return
    written = codec.encode(read)
    assert len(written) <= 2 * len(data) + 16, (len(written), len(data))
    again = codec.decode(kind, written)
    assert again == read
    assert codec.encode(again) == written
    copy = codec.clone(read)
    assert copy == read
    assert codec.encode(copy) == written


def tags(kind):
    """Each field of a message, as bytes that can come again and again: empty, a number, and what adds to what was."""
    unknown = _varint(1000 << 3 | 2) + b"\1a"
    for name, number in [*((each.name, FieldMetadata.get(each).number) for each in fields(kind)), ("(unknown)", 1000)]:
        tag = _varint(number << 3 | 2)
        yield name, tag + b"\0"
        yield name, tag + bytes([len(unknown)]) + unknown
        yield name, _varint(number << 3) + b"\1"


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# --- paths, tokens, errors


@of_text
@raises(InvalidRequest)
def registry_path(text):
    path = RegistryPath.from_metadata(text)
    written = path.to_metadata()
    assert RegistryPath.from_metadata(written) == path
    assert len(written) <= 6 * len(text.encode()) + 60


@of_text
def token(text):
    _judged(text)


def claims(data):
    """The payload of a token that is well made otherwise."""
    header = base64.urlsafe_b64encode(b'{"alg":"ES256","typ":"JWT"}').rstrip(b"=")
    _judged((header + b"." + base64.urlsafe_b64encode(data).rstrip(b"=") + b"." + b"A" * 86).decode())


def _judged(text):
    found = claims_of(text)
    if found is not None:
        assert isinstance(found.subject, str)
        assert found.audience is None or all(isinstance(each, str) for each in found.audience)
        assert math.isfinite(found.expires)
    assert not is_signed_by(text, _stranger())


@cache
def _stranger():
    leaf = identity_of(Authority.create("fuzz.mesh"), "stranger").svid.leaf
    return Peer("spiffe://fuzz.mesh/stranger", leaf.public_bytes(Encoding.DER))


_LONGEST_ESCAPE = 10
"""Characters in the place of one that is not printable, such as `\\U0010ffff`."""


@of_text
def status_line(text):
    """The text of a gRPC status; an error of ours is read as what it was."""
    error = from_status(3, text)
    assert isinstance(error, MeshError)
    assert len(str(error)) <= _LONGEST_ESCAPE * len(text) + 60
    assert len(error.detail) <= LONGEST_DETAIL
    again = from_status(3, str(error))
    assert len(str(again)) <= 2 * len(str(error)) + 60


@of_text
def metadata_time(text):
    with contextlib.suppress(ValueError):
        moment = wellknown.Timestamp.from_rfc3339(text)
        assert len(moment.to_rfc3339()) <= 30
        assert wellknown.Timestamp.from_rfc3339(moment.to_rfc3339()) == moment


def moment(data):
    """A time as a message says it: any two numbers."""
    found = _decoded((wellknown.Timestamp, data))
    if found is not None:
        assert wellknown.Timestamp.from_rfc3339(found.to_rfc3339()) is not None


@of_text
@raises(InvalidRequest)
def inode_url(text):
    key = file_key(text)
    assert key is None or all(isinstance(part, int) and part >= 0 for part in key)


# --- descriptors beside the bytes


class _Listener(asyncio.BufferedProtocol):
    def __init__(self):
        self.heard, self.ended = b"", asyncio.get_running_loop().create_future()
        self._buffer = bytearray(65536)

    def connection_made(self, transport): ...

    def get_buffer(self, sizehint):
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes):
        self.heard += bytes(self._buffer[:nbytes])

    def eof_received(self):
        return False

    def connection_lost(self, exc):
        if not self.ended.done():
            self.ended.set_result(exc)


def descriptor_frames(data):
    """Each byte is a write: how many bytes, and how many descriptors of which kind ride on the first of them."""
    asyncio.run(_frames(data[:64]))


async def _frames(data):
    before, said = _open_descriptors(), b""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    listener = _Listener()
    inbox = (FileInbox(), FileInbox(is_verified=False), None)[len(data) % 3]
    transport = DescriptorTransport(asyncio.get_running_loop(), theirs, listener, inbox)
    with ours:
        for number, byte in enumerate(data):
            chunk = bytes([number & 0xFF]) * (1 + (byte & 0x07))
            files = [_file(byte >> 6) for _ in range((byte >> 3) & 0x07)]
            try:
                sent = _sent(ours, chunk, files)
            finally:
                for each in files:
                    os.close(each)
            said += chunk[:sent]
            await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.shield(listener.ended), 5)
    transport.abort()
    await asyncio.sleep(0)
    assert said.startswith(listener.heard)
    assert listener.heard == said or transport.is_closing()
    assert _until(lambda: _open_descriptors() <= before), "descriptors stay open"


def _sent(sock, chunk, files):
    try:
        return sock.sendmsg(
            [chunk], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files).tobytes())] if files else []
        )
    except OSError:  # the other side has closed it
        return 0


def _file(kind):
    if kind == 0:
        return os.open("/dev/null", os.O_RDONLY)
    if kind == 1:
        return os.open("/proc/self/ns/net", os.O_RDONLY)
    if kind == 2:
        one, other = socket.socketpair()
        one.close()
        return other.detach()
    return os.open("/", os.O_PATH)


def _open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def _until(condition, seconds=2.0):
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return met


# --- DNS


class _Knows:
    """Answers with whatever bytes the fuzzer found, if they are an answer to the question at all."""

    def __init__(self, data):
        self._data = data

    async def answer(self, query, rest):
        del rest
        question = query.message
        data = question.id.to_bytes(2, "big") + self._data[2:]
        found = read_answer(data, question)
        return failure(question, dns.rcode.SERVFAIL) if found is None else as_answer_to(question, found)


def dns_message(data):
    """A question as it comes from a program, and what a server answers to it: the same bytes are tried as both."""
    for question in (data, _QUESTION):
        reply = asyncio.run(reply_to(question, listed([CheckMessage(), _Knows(data)]), largest=lambda _message: 1232))
        if reply is None:
            continue
        assert len(reply) <= 1232
        assert reply[:2] == question[:2]
        dns.message.from_wire(reply)


_QUESTION = dns.message.make_query("example.org.", "A", id=7).to_wire()

JSON = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b":",
    b",",
    b"\\u0000",
    b"\\ud800",
)

TARGETS = (
    Target(
        "message",
        message,
        (b"\x0a\x00", b"\x12\x02\x0a\x00", b"\xff\xff\xff\xff\x0f", b"\x80\x01", b"\x1a", b"\x0b", b"\x0c"),
    ),
    Target(
        "registry_path",
        registry_path,
        (b'"Index"', b'"PathSegments"', b'"token"', *JSON),
        (
            (b'{"Index":1,"PathSegments":[{"token":"x"}', b',{"token":"y"}', b"]}"),
            (b'{"Index":1,"PathSegments":[{"token":"', b"\\u0041", b'"}]}'),
            (b"", b"[", b""),
            (b"", b'{"a":', b""),
            (b'{"Index":1', b"1", b"}"),
            (b'{"Index":1', b',"index":2', b"}"),
        ),
    ),
    Target(
        "token",
        token,
        (b".", b"e30", b"eyJhbGciOiJFUzI1NiJ9", b"eyJhbGciOiJub25lIn0"),
        ((b"", b".", b""), (b"e30.", b"e", b".e30"), (b"", b"A", b"")),
    ),
    Target(
        "claims",
        claims,
        (b'"sub"', b'"aud"', b'"exp"', b'"nbf"', *JSON),
        (
            (b'{"sub":"s","exp":1', b"0", b"}"),
            (b'{"sub":"s","exp":1,"aud":["a"', b',"b"', b"]}"),
            (b'{"sub":"', b"s", b'","exp":1}'),
            (b"", b"[", b""),
        ),
    ),
    Target(
        "status_line",
        status_line,
        ("→".encode(), b": ", b" (", b")"),
        (
            (b"", b": ", b""),
            (b"a: ", b"x (", b""),
            (b"a: ", b" ", b" (b)"),
            (b"a: b", b"(", b")"),
            (b"", "a → ".encode(), b"b: c (d)"),
        ),
    ),
    Target(
        "metadata_time",
        metadata_time,
        (b"-", b"T", b"Z", b"+00:00", b".", b"9999-12-31T23:59:60Z"),
        ((b"2026-01-31T12:00:00.", b"1", b"Z"),),
    ),
    Target(
        "inode_url",
        inode_url,
        (b"inode://", b"/", b"file:///proc/self/ns/net"),
        ((b"inode://4/", b"1", b""), (b"inode://", b"/", b"")),
    ),
    Target("descriptor_frames", descriptor_frames),
    Target(
        "dns_message",
        dns_message,
        (b"\x00\x01\x00\x01", b"\xc0\x0c", b"\x07example\x03org\x00", b"\x00\x00\x29", b"\x80\x00"),
        (
            (b"\0\7\1\0\0\1\0\0\0\0\0\0", b"\1a", b"\0\0\1\0\1"),
            (b"\0\7\x81\0\0\1\xff\xff\0\0\0\0\7example\3org\0\0\1\0\1", b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4", b""),
        ),
    ),
)
