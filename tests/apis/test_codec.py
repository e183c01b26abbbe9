"""The codec against google.protobuf, in both directions."""

import importlib
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nsm.apis import codec, connection, connectioncontext, networkservice, registry, workload
from nsm.apis.wellknown import Timestamp

OURS = {
    "connection.Connection": connection.Connection,
    "connection.ConnectionEvent": connection.ConnectionEvent,
    "connection.MonitorScopeSelector": connection.MonitorScopeSelector,
    "networkservice.NetworkServiceRequest": networkservice.NetworkServiceRequest,
    "connectioncontext.ConnectionContext": connectioncontext.ConnectionContext,
    "registry.NetworkServiceResponse": registry.NetworkServiceResponse,
    "registry.NetworkServiceEndpointQuery": registry.NetworkServiceEndpointQuery,
    "workload.X509SVIDResponse": workload.X509SvidResponse,
}


@pytest.fixture(scope="session")
def google(tmp_path_factory):
    """Google's classes for the same .proto files, by full name."""
    out = tmp_path_factory.mktemp("google")
    protos = ["connection", "connectioncontext", "networkservice", "registry", "workload"]
    files = [f"{name}.proto" for name in protos]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-Iapis/proto", f"--python_out={out}", *files], check=True
    )
    sys.path.insert(0, str(out))
    modules = {name: importlib.import_module(f"{name}_pb2") for name in protos}
    yield {full: getattr(modules[full.partition(".")[0]], full.partition(".")[2]) for full in OURS}
    sys.path.remove(str(out))


def values(field):
    """A strategy for one value of a scalar field of a google descriptor."""
    kinds = type(field)
    return {
        kinds.TYPE_STRING: st.text(max_size=200),
        kinds.TYPE_BYTES: st.binary(max_size=200),
        kinds.TYPE_BOOL: st.booleans(),
        kinds.TYPE_UINT32: st.integers(0, 2**32 - 1),
        kinds.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        kinds.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        kinds.TYPE_ENUM: st.integers(-2, 2**31 - 1),
    }[field.type]


def fill(draw, message):
    """Set some fields of a google message to random values."""
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in draw(st.lists(st.text(max_size=20), max_size=3)):
                value = field.message_type.fields_by_name["value"]
                if value.message_type is not None:
                    fill(draw, target[key])
                else:
                    target[key] = draw(values(value))
        elif field.message_type is not None and field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                fill(draw, target.add())
        elif field.message_type is not None:
            target.SetInParent()
            fill(draw, target)
        elif field.is_repeated:
            target.extend(draw(st.lists(values(field), max_size=3)))
        else:
            setattr(message, field.name, draw(values(field)))


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_agrees_with_protobuf_in_both_directions(google, name, data):
    """What google wrote reads and copies here; what is written here reads there as the same message."""
    theirs = google[name]()
    fill(data.draw, theirs)
    message = codec.decode(OURS[name], theirs.SerializeToString())
    for written in (codec.encode(message), codec.encode(codec.clone(message))):
        back = google[name]()
        back.ParseFromString(written)
        assert back == theirs
        assert len(written) == len(theirs.SerializeToString())


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@example(data=b"\x80\x80\x80\x80\x10\x00", name="connection.Connection")
@example(data=b"\x0a\x80\x80\x80\x80\x80\x00", name="connection.Connection")
@example(data=b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", name="connection.Connection")
@given(data=st.binary(max_size=60), name=st.sampled_from(sorted(OURS)))
def test_garbage_is_refused_as_protobuf_refuses_it_and_never_anything_worse(google, name, data):
    """Random bytes either read in both with the same meaning, or are a DecodeError here."""
    theirs = google[name]()
    try:
        message = codec.decode(OURS[name], data)
    except codec.DecodeError as error:
        if "more than 64 bits" in str(error):  # Go's parser refuses it, this one cuts it off
            return
        with pytest.raises(Exception, match=r"(?i)pars|utf|decod"):
            theirs.ParseFromString(data)
    else:
        theirs.ParseFromString(data)
        back = google[name]()
        back.ParseFromString(codec.encode(message))
        assert back == theirs


def test_unknown_fields_survive():
    """A field of a later version of the API is passed on."""
    later = codec.encode(connection.Mechanism(cls="LOCAL")) + b"\xa2\x06\x03new" + b"\xa8\x06\x05"
    assert codec.encode(codec.clone(codec.decode(connection.Mechanism, later))) == later


def test_a_message_field_that_comes_twice_is_merged():
    """As the wire format demands."""
    first = codec.encode(connection.Connection(mechanism=connection.Mechanism(cls="LOCAL")))
    second = codec.encode(connection.Connection(mechanism=connection.Mechanism(type="KERNEL")))
    merged = codec.decode(connection.Connection, first + second)
    assert merged.mechanism == connection.Mechanism(cls="LOCAL", type="KERNEL")


def test_a_message_that_comes_twice_in_a_map_entry_is_merged():
    """As in a field of its own; of two texts the last one counts."""
    parts = [connection.Connection(id="a"), connection.Connection(payload="IP")]
    entry = b"\x0a\x01k" + b"".join(b"\x12" + bytes([len(part)]) + part for part in map(codec.encode, parts))
    event = codec.decode(connection.ConnectionEvent, b"\x12" + bytes([len(entry)]) + entry)
    assert event.connections == {"k": connection.Connection(id="a", payload="IP")}
    entry = b"\x0a\x01k\x12\x01a\x12\x01b"
    mechanism = codec.decode(connection.Mechanism, b"\x1a" + bytes([len(entry)]) + entry)
    assert mechanism.parameters == {"k": "b"}


def test_a_number_of_more_than_64_bits_is_refused():
    """Upstream's parser refuses it too."""
    full = b"\x08" + b"\xff" * 9
    assert codec.decode(connection.Path, full + b"\x01").index == 0xFFFFFFFF
    with pytest.raises(codec.DecodeError, match="more than 64 bits"):
        codec.decode(connection.Path, full + b"\x02")


def test_a_clone_shares_nothing_mutable():
    """Changing the copy leaves the message alone."""
    message = request()
    copy = codec.clone(message)
    copy.connection.labels["a"] = "b"
    copy.connection.path.path_segments[0].metrics["x"] = "y"
    copy.connection.path.path_segments.pop()
    copy.mechanism_preferences[0].parameters.clear()
    assert message == request()


def test_what_a_field_cannot_carry_is_refused():
    """The error names the field."""
    with pytest.raises(codec.EncodeError, match="index is -1"):
        codec.encode(connection.Path(index=-1))
    with pytest.raises(codec.EncodeError, match="cannot write Path"):
        codec.encode(connection.Path(path_segments=[None]))


def test_timestamps_keep_nanoseconds():
    """The segments' expiry is relayed as it is."""
    stamp = Timestamp.from_rfc3339("2026-01-31T12:00:00.123456789Z")
    assert codec.decode(Timestamp, codec.encode(stamp)).to_rfc3339() == "2026-01-31T12:00:00.123456789Z"
    assert Timestamp.from_rfc3339("2026-01-31T13:00:00.5+01:00").to_rfc3339() == "2026-01-31T12:00:00.500Z"


def test_writing_and_reading_costs_at_most_a_fifth_of_betterproto2():
    """In the same run, medians of alternating rounds."""
    from bench.codec import ratio

    assert ratio(rounds=15) >= 5


def test_generated_code_is_what_the_proto_files_give():
    """`make proto` would change nothing."""
    assert subprocess.run([sys.executable, "apis/generate.py", "--check"], check=False).returncode == 0


def request():
    from bench.codec import request as example

    return example()


def test_compiling_is_done_once_per_type():
    """The second use of a type costs no compilation."""
    codec.encode(request())
    begin = time.perf_counter()
    codec.encode(request())
    assert time.perf_counter() - begin < 0.01
