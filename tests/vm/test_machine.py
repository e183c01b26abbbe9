"""The machine that the tests run in: what it offers, and what it says of a test that goes wrong."""

import pytest

from tests.vm import machine as module
from tests.vm.guest import samples
from tests.vm.machine import Hung, Machine

HERE = samples.__name__


def test_packets_cross_a_cable(machine):
    outcome = machine.run(HERE, "packets_cross_a_cable", 30)
    assert outcome.passed, outcome.output


def test_a_test_that_fails_says_where(machine):
    outcome = machine.run(HERE, "fails", 30)
    assert not outcome.passed
    assert "AssertionError: two is not one" in outcome.output


def test_a_test_that_hangs_is_ended_and_says_where_it_stood(machine):
    outcome = machine.run(HERE, "hangs", 2)
    assert not outcome.passed
    assert "samples.py" in outcome.output
    assert "in hangs" in outcome.output
    assert machine.run(HERE, "finds_nobody", 30).passed


def test_what_is_written_inside_is_not_written_outside(machine):
    file = samples.__file__
    assert machine.run(HERE, "overwrites_itself", 30).passed
    with open(file) as source:
        assert "def overwrites_itself" in source.read()


def test_a_machine_that_stops_shows_its_console_and_is_booted_again(machine):
    with pytest.raises(Hung, match=r"qemu ended during [\s\S]*Kernel panic"):
        machine.run(HERE, "crashes_the_kernel", 30)
    assert machine.run(HERE, "packets_cross_a_cable", 60).passed


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo no such kernel", r"qemu ended during boot\n[\s\S]*no such kernel"),
        ("sleep 100", "no end of boot after 0.5 s"),
    ],
    ids=["ends", "hangs"],
)
def test_a_machine_that_does_not_boot_says_why_and_is_not_tried_again(machine, tmp_path, monkeypatch, script, told):
    monkeypatch.setattr(module, "BOOT_SECONDS", 0.5)
    other = Machine(tmp_path)
    monkeypatch.setattr(other, "_command", lambda: ["sh", "-c", script])
    with pytest.raises(Hung, match=told) as first:
        other.boot()
    with pytest.raises(Hung) as second:
        other.boot()
    assert second.value is first.value
