"""Seconds of fuzzing in each run of the tests; `make fuzz MINUTES=n` has more of it.

What once failed is in `corpus/`, a file each, and is tried every time.
"""

import gc
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import wire
from .all_targets import TARGETS
from .target import Target

FEW = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NOISE = 0.02
"""Seconds below which a measurement says nothing."""
STEEPEST = 3.0
"""How many times more than in proportion the time may grow: four times the bytes, at most 12 times the time."""


@st.composite
def mutated(draw, target):
    """A seed, with a few pieces of it taken out, repeated, replaced, or put in between."""
    seeds, words = list(target.seeds().values()) or [b""], target.words or (b"\0",)
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + 40)))
        piece = draw(st.one_of(st.sampled_from(words), st.binary(max_size=6), st.just(bytes(data[begin:end]))))
        data[begin : draw(st.sampled_from([begin, end]))] = piece * draw(st.sampled_from([0, 1, 1, 1, 2, 50]))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_whatever_comes_nothing_but_the_documented_error_comes_out(target):
    @given(st.one_of(mutated(target), st.binary(max_size=64)))
    @FEW
    def promises_hold(data):
        target(data)

    promises_hold()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_once_failed_does_so_no_more(target):
    for data in target.seeds().values():
        target(data)


@pytest.mark.parametrize("target", [each for each in TARGETS.values() if each.repeated], ids=lambda each: each.name)
def test_time_is_linear_in_what_is_repeated(target):
    for begin, unit, end in target.repeated:
        made = lambda size, a=begin, u=unit, e=end: a + u * (size // len(u)) + e  # noqa: E731
        assert_linear(target, made, (begin, unit, end))


@pytest.mark.parametrize("kind", wire.MESSAGES, ids=lambda kind: kind.__name__)
def test_time_is_linear_in_a_message_of_one_field_again_and_again(kind):
    target = Target(kind.__name__, lambda data: wire._decoded((kind, data)), largest=32768)
    for name, unit in wire.tags(kind):
        assert_linear(target, lambda size, u=unit: u * (size // len(u)), name)


def assert_linear(target, made, what):
    """Four times as much takes about four times as long, once it takes long enough to say so."""
    largest = target.largest
    small = _seconds(target, made(largest // 4))
    large = _seconds(target, made(largest))
    if large > NOISE and large > STEEPEST * 4 * small:  # once more: the machine may have been busy
        small, large = (min(_seconds(target, made(size)) for _ in range(3)) for size in (largest // 4, largest))
        assert large <= STEEPEST * 4 * max(small, NOISE / 8), (
            f"{what}: {small:.3f} s, then {large:.3f} s for four times as much"
        )
    assert large <= 1.0, f"{what}: {large:.2f} s for {largest} bytes"


def _seconds(target, data):
    gc.collect(0)
    gc.disable()  # what it takes grows with all objects that there are
    try:
        begin = time.process_time()
        target.run(data)
        return time.process_time() - begin
    finally:
        gc.enable()
