"""Blocks of headers, as our own side writes and reads them and as everybody else's does."""

import hpack
import pytest
from hpack import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from nsm.chains.transport.headers import Decoder, Encoder

CALL = [(":method", "POST"), (":path", "/a.B/C"), ("te", "trailers"), ("nsm-client-token", "t" * 300)]
NAMES = st.sampled_from(["te", ":path", "a", "b", "nsm-client-token"])
VALUES = st.one_of(st.text("xyz", max_size=3), st.sampled_from(["v" * 40, "w" * 50, "u" * 200, ""]))
BLOCKS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
TIMEOUTS = st.sampled_from(
    [[], [("grpc-timeout", "15S")], [("grpc-timeout", "9" * 127)], [("grpc-timeout", "9" * 128)]]
)


def read(decoder, block):
    return [(name.decode(), value.decode()) for name, value in decoder.decode(block, raw=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BLOCKS, TIMEOUTS, st.booleans(), st.sampled_from([0, 100, 250])), max_size=12))
def test_everybody_reads_what_we_write_and_we_what_everybody_writes(calls):
    """Whatever is said again, is thrown out of the table, or is too large for it; also when the table's size changes."""
    ours, other, our_reader, their_reader = Encoder(), hpack.Encoder(), Decoder(), hpack.Decoder()
    for headers, timeout, changes, size in calls:
        if changes:
            ours.header_table_size = other.header_table_size = size
        for _ in range(3):
            assert read(their_reader, ours.encode([*headers, *timeout])) == [*headers, *timeout]
            assert read(our_reader, other.encode([*headers, *timeout])) == [*headers, *timeout]


def test_headers_that_were_there_before_are_not_coded_anew():
    """A call says where they are in the table, and its deadline, which does not push anything out of it."""
    encoder, decoder = Encoder(), Decoder()
    first, second = (encoder.encode([*CALL, ("grpc-timeout", f"{number}m")]) for number in (1, 2))
    assert len(second) < 30 < len(first)
    for number, block in enumerate([first, second], 1):
        assert read(decoder, block) == [*CALL, ("grpc-timeout", f"{number}m")]
    assert len(encoder.header_table.dynamic_entries) == 3
    assert encoder._known
    assert decoder._known


def test_what_is_remembered_of_a_peer_s_headers_is_bounded():
    decoder = Decoder()
    for index in range(2, 62):
        decoder.decode(bytes([0x80 + index]), raw=True)
        decoder.decode(bytes([0x80 + index]) * 100, raw=True)
    assert len(decoder._known) <= 16
    assert all(len(block) <= 32 for block in decoder._known)


@pytest.mark.parametrize(
    "block", [b"\x82\x80", b"\x82\xfe", b"\xfe", b"\x82\x3f\xe1\x1f", b"\x82\x00", b"\x82\xff"], ids=bytes.hex
)
def test_a_block_that_cannot_be_is_refused_also_behind_headers_that_can(block):
    """Such as a change of the table's size that does not stand first."""
    decoder = Decoder()
    decoder.decode(b"\x82", raw=True)
    with pytest.raises(HPACKError):
        decoder.decode(block, raw=True)


def test_headers_that_were_remembered_count_for_how_many_there_may_be():
    decoder = Decoder()
    decoder.max_header_list_size = 100
    decoder.decode(b"\x82\x84", raw=True)
    with pytest.raises(HPACKError, match="100"):
        decoder.decode(b"\x82\x84\x00\x01a\x01b", raw=True)
