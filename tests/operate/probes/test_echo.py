"""The arithmetic of probes."""

import pytest

from nsm.operate.probes.echo import checksum, percentile
from nsm.operate.probes.measure import jitter


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (100, 10), (10, 1), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent, value):
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value


def test_without_answers_there_is_no_percentile():
    assert percentile([], 50) is None


def test_the_checksum_is_that_of_rfc_1071():
    """Its own example, section 3; and a packet with its checksum has the sum 0."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert checksum(bytes.fromhex("0001f203f4f5f6f7") + (~0xDDF2 & 0xFFFF).to_bytes(2, "big")) == 0
    assert checksum(b"\x01") == ~0x0100 & 0xFFFF


def test_jitter_is_that_of_rfc_3550():
    """Equal delays have none; each difference counts for a sixteenth."""
    assert jitter([5.0, 5.0, 5.0]) == 0
    assert jitter([5.0, 6.6]) == pytest.approx(0.1)
    assert jitter([5.0]) is None
