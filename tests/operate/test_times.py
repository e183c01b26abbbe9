"""How commands print times."""

from datetime import UTC, datetime, timedelta

import pytest

from nsm.operate.times import age, clock

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (660, "11m"),
        (7500, "2h5m"),
        (40000, "11h"),
        (86400, "1d"),
        (90000, "1d1h"),
        (-5, "0s"),
    ],
)
def test_an_age_has_one_or_two_units(seconds, text):
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_an_unknown_time_is_empty():
    assert (age(None, NOW), clock(None)) == ("", "")


def test_another_day_is_named():
    assert clock(NOW).startswith("2026-01-31 ")
    assert clock(datetime.now(UTC)).count(":") == 2
    assert "-" not in clock(datetime.now(UTC))
