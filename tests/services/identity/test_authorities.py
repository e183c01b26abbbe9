"""Which authority signs when, and when a new one is made."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from nsm.chains.identity import Authority
from nsm.services.identity.authorities import Authorities, alive, is_due, signing

DAY = timedelta(days=1)
ONE, TWO = (Authority.create("test.mesh", lifetime=40 * DAY) for _ in range(2))
BEGIN = ONE.certificate.not_valid_before_utc


def aged(days, life=40):
    """`TWO` as if it had been made that many days after `ONE`, for `life` days."""

    class Certificate:
        not_valid_before_utc = BEGIN + days * DAY
        not_valid_after_utc = BEGIN + (days + life) * DAY

    return Authority("test.mesh", Certificate, TWO.key)


@pytest.mark.parametrize(("day", "due"), [(0, False), (19, False), (21, True), (50, True)])
def test_a_successor_is_made_half_way(day, due):
    assert is_due([ONE], BEGIN + day * DAY) is due


def test_the_first_of_all_is_made_at_once_and_signs_from_the_beginning():
    assert is_due([], BEGIN)
    assert signing([ONE], BEGIN + DAY) is ONE


def test_a_successor_stops_more_from_being_made_until_it_is_half_way_itself():
    two = aged(20)
    assert not is_due([ONE, two], BEGIN + 30 * DAY)
    assert is_due([ONE, two], BEGIN + 41 * DAY)


@pytest.mark.parametrize(("day", "one_signs"), [(20, True), (29, True), (31, False), (39, False)])
def test_a_successor_is_trusted_for_a_quarter_of_its_life_before_it_signs(day, one_signs):
    two = aged(20)
    for both in ([ONE, two], [two, ONE]):
        assert (signing(both, BEGIN + day * DAY) is ONE) is one_signs
        assert alive(both, BEGIN + day * DAY) == [ONE, two]


@pytest.mark.parametrize(("made", "life", "signs_from"), [(20, 400, 30), (20, 4000, 30), (38, 40, 39), (20, 8, 22)])
def test_one_that_ends_before_its_successor_s_first_quarter_does_not_sign_to_its_end(made, life, signs_from):
    """As after a longer NSM_AUTHORITY_LIFETIME: all SVIDs would end with it at once, before there are others."""
    two = aged(made, life)
    assert signing([ONE, two], BEGIN + made * DAY) is ONE
    assert signing([ONE, two], BEGIN + (signs_from - 0.1) * DAY) is ONE
    assert signing([ONE, two], BEGIN + (signs_from + 0.1) * DAY) is two


def test_one_that_is_not_valid_yet_does_not_sign():
    assert signing([ONE, aged(50, 400)], BEGIN + 39 * DAY) is ONE


def test_one_that_has_ended_is_trusted_no_more():
    two = aged(20)
    assert alive([ONE, two], BEGIN + 41 * DAY) == [two]
    assert signing([ONE, two], BEGIN + 41 * DAY) is two


def test_a_successor_that_came_late_signs_early_rather_than_one_that_has_ended():
    """As after a cluster that was switched off for weeks."""
    assert signing([ONE, aged(39)], BEGIN + 41 * DAY) is not ONE
    assert signing([ONE], BEGIN + 41 * DAY) is ONE  # refused by whoever sees it, with a reason


async def test_who_waits_for_a_change_misses_none_and_hears_of_no_other():
    authorities = Authorities([ONE])
    seen = authorities.version
    authorities.use([ONE])
    assert authorities.version == seen
    authorities.use([ONE, TWO])
    await asyncio.wait_for(authorities.changed(seen), 1)
    waiting = asyncio.ensure_future(authorities.changed(authorities.version))
    await asyncio.sleep(0)
    assert not waiting.done()
    authorities.use([TWO])
    await asyncio.wait_for(waiting, 1)
    assert authorities.bundle == [TWO.certificate]
    assert authorities.signing.certificate.not_valid_after_utc > datetime.now(UTC)
