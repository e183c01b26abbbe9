"""What reading costs: as much as there are bytes, whatever they say."""

import sys
from contextlib import contextmanager

import betterproto2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm.apis import codec, connection, connectioncontext, csi, health, ipam, networkservice, registry, workload
from nsm.apis.wellknown import Timestamp

MODULES = (connection, connectioncontext, csi, health, ipam, networkservice, registry, workload)
KINDS = {
    kind.__name__: kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, betterproto2.Message)
}
PER_BYTE = 150
"""Steps: a line that ran, or a byte that was copied. Deep messages are looked through once for each level."""


class Watched(bytes):
    """Bytes that count what is cut out of them, and what is copied to append to others."""

    copied = 0

    def __getitem__(self, key):
        piece = super().__getitem__(key)
        return self._counted(piece) if isinstance(key, slice) else piece

    def __add__(self, other):
        return self._counted(bytes(self) + bytes(other))

    def __radd__(self, other):
        return self._counted(bytes(other) + bytes(self))

    @staticmethod
    def _counted(piece):
        Watched.copied += len(piece)
        return Watched(piece)


def compiled(name):
    """The functions of a kind, and whether its fields are of a sort that the codec reads."""
    try:
        codec.prepare(KINDS[name])
    except TypeError:
        return False
    return True


READABLE = sorted(name for name in KINDS if compiled(name))


@contextmanager
def counted():
    """Counts steps of the codec; gives a function that tells how many there were."""
    lines = 0

    def whole(parts):
        data = Watched(b"".join(parts))
        Watched.copied += len(data)
        return data, 0, len(data)

    def trace(frame, event, _argument):
        nonlocal lines
        if "codec" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    patch = pytest.MonkeyPatch()
    patch.setattr(codec, "_whole", whole)
    for functions in codec._cache.values():
        patch.setitem(functions.decode.__globals__, "whole", whole)
    Watched.copied, former = 0, sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: lines + Watched.copied
    finally:
        sys.settrace(former)
        patch.undo()


def steps(kind, data):
    with counted() as count:
        try:
            codec.decode(kind, Watched(data))
        except codec.DecodeError:
            pass
    return count()


def field(number, wire, body=b""):
    length = codec._varint(len(body)) if wire == 2 else b""
    return codec._varint(number << 3 | wire) + length + body


@st.composite
def records(draw, depth=4):
    """One field: a known or an unknown one, whose content is bytes, text, or such fields again, many times over."""
    number, wire = draw(st.integers(1, 30)), draw(st.sampled_from([0, 1, 2, 2, 2, 2, 5]))
    if wire != 2:
        return field(number, wire, b"") + {0: b"\x01", 1: b"x" * 8, 5: b"x" * 4}[wire]
    if depth and draw(st.booleans()):
        inner = b"".join(draw(st.lists(records(depth=depth - 1), max_size=3)))
        return field(number, 2, inner * draw(st.integers(1, 8)))
    return field(number, 2, draw(st.sampled_from([b"", b"a", b"\x0a\x00", b"\x0a\x01a\x12\x01b"])))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(READABLE), record=records(), times=st.integers(1, 600))
def test_reading_is_linear_in_the_bytes(name, record, times):
    """For every message, and every field of it repeated: known or unknown, at every depth."""
    data = record * min(times, 6000 // len(record))
    assert steps(KINDS[name], data) <= PER_BYTE * len(data) + 500


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (connection.Connection, b"\xf8\x07\x01"),  # a field that it does not have
        (connection.Connection, b"\x1a\x00"),  # one message field, given again and again
        (connection.Connection, b"\x22\x05\x0a\x03\x0a\x01a"),  # ... with content
        (networkservice.NetworkServiceRequest, b"\x0a\x04\x1a\x02\xf8\x07"),
        (connection.ConnectionEvent, b"\x12\x06\x0a\x00\x12\x02\x0a\x00"),
        (Timestamp, b"\xf8\x07\x01"),
    ],
)
def test_what_froze_a_manager_is_read_in_no_time(kind, record):
    """Four times the bytes take four times the steps, not sixteen."""
    few, many = (steps(kind, record * times) for times in (500, 2000))
    assert many <= 4.2 * few + 500


EMPTY = {
    "preferences": (networkservice.NetworkServiceRequest, b"\x12\x00"),
    "segments": (connection.Path, b"\x12\x00"),
    "policies": (connectioncontext.IpContext, b"\x5a\x00"),
    "routes of policies": (connectioncontext.IpContext, b"\x5a\x04\x2a\x00\x2a\x00"),
    "configurations": (connectioncontext.DnsContext, b"\x0a\x00"),
    "matches": (registry.NetworkService, b"\x1a\x00"),
    "labels of services": (registry.NetworkServiceEndpoint, b"\x1a\x00"),
    "one context, again and again": (connection.Connection, b"\x22\x00"),
    "unknown fields": (connection.Connection, b"\xf8\x07\x01"),
    "groups": (connection.Connection, b"\x7b\x7c"),
    "groups in groups": (connection.Connection, b"\x7b" * 90 + b"\x7c" * 90),
}


@pytest.mark.parametrize("what", EMPTY)
def test_what_takes_two_bytes_and_an_object_is_refused_where_there_is_too_much_of_it(what):
    """64 KiB of it made others wait for 200 ms."""
    kind, record = EMPTY[what]
    with pytest.raises(codec.DecodeError, match="too many parts"):
        codec.decode(kind, record * (65_536 // len(record)))


def test_no_message_that_the_limits_allow_has_too_many_parts():
    routes = [connectioncontext.Route(prefix="::/0")] * 8192
    segments = [connection.PathSegment(name="a")] * 1024
    events = {str(number): connection.Connection(id=str(number)) for number in range(20_000)}
    record = registry.NetworkService(name="n", matches=[registry.Match(routes=[registry.Destination()])] * 64)
    for message in (
        connectioncontext.IpContext(src_routes=routes[:256], dst_routes=routes[:256]),
        connectioncontext.IpContext(src_routes=routes[:1500]),
        connection.Path(path_segments=segments),
        connection.ConnectionEvent(connections=events),
        record,
    ):
        assert codec.decode(type(message), codec.encode(message)) == message


def test_parts_that_are_cut_off_are_not_put_together():
    """What one part lacks is not taken from the next: each is a message of its own."""
    with pytest.raises(codec.DecodeError):
        codec.decode(connection.Connection, b"\x1a\x00" + b"\x1a\x01\x0a" + b"\x1a\x02\x01a")
    with pytest.raises(codec.DecodeError):
        codec.decode(connection.ConnectionEvent, b"\x12\x07\x12\x01\x0a\x12\x02\x01a")


def test_many_parts_are_merged_as_protobuf_merges_them():
    """The last value of each field counts, lists grow, and unknown fields stay."""
    parts = [
        connection.Connection(path=connection.Path(index=1, path_segments=[connection.PathSegment(name="a")])),
        connection.Connection(path=connection.Path(path_segments=[connection.PathSegment(name="b")])),
        connection.Connection(path=connection.Path(index=3)),
    ]
    merged = codec.decode(connection.Connection, b"".join(map(codec.encode, parts)))
    assert merged.path.index == 3
    assert [segment.name for segment in merged.path.path_segments] == ["a", "b"]
