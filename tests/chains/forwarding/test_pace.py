"""How soon a repair that somebody keeps undoing is made again."""

from nsm.chains.forwarding.pace import AT_ONCE, CALM, Pace


def repaired(times, pace=None, at=0.0):
    pace = pace or Pace()
    for _ in range(times):
        at += pace.wait(at)
        pace.repaired(at)
    return pace, at


def test_the_first_repairs_are_made_at_once():
    pace, at = repaired(AT_ONCE - 1)
    assert at == 0
    assert not pace.is_slow(at)


def test_who_undoes_each_repair_is_answered_ever_more_slowly_but_always():
    pace, at = repaired(AT_ONCE)
    waits = []
    for _ in range(10):
        waits.append(pace.wait(at))
        _, at = repaired(1, pace, at)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pace.is_slow(at)


def test_after_a_while_without_repairs_all_is_forgotten():
    pace, at = repaired(AT_ONCE)
    assert pace.is_slow(at)
    at += CALM + 1.1
    assert not pace.is_slow(at)
    assert pace.wait(at) == 0
    pace.repaired(at)
    assert pace.wait(at) == 0


def test_what_was_waited_for_counts_from_the_last_repair():
    pace, at = repaired(AT_ONCE + 2)
    assert pace.wait(at) == 2
    assert pace.wait(at + 1.5) == 0.5
    assert pace.wait(at + 3) == 0
