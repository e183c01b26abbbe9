"""What errors carry besides their text: what to do, and what each endpoint answered."""

import pytest

from nsm.chains.core import Exhausted, NotFound, Tried, add_details, details_of, from_status
from nsm.chains.elements.try_candidates import all_failed
from nsm.chains.transport.server import _status

FULL = Exhausted("no address is left → in 10.0.0.0/31", remedy="use a larger prefix", tried=[Tried("nse", "full ✗")])


def received(trailers):
    error = from_status(5, "gone")
    add_details(error, dict(trailers))
    return error


def test_they_arrive_at_the_caller_unchanged():
    error = received(details_of(FULL))
    assert (error.remedy, error.tried) == (FULL.remedy, FULL.tried)


def test_trailers_are_ascii():
    assert all(value.isascii() for _, value in details_of(FULL))


def test_an_error_without_them_has_no_trailers():
    assert details_of(NotFound("gone")) == []


@pytest.mark.parametrize("text", ["", "{", "7", "[1]", '[["a"]]', "[" * 4000, '"' + "x" * 9000 + '"'])
def test_what_cannot_be_read_is_ignored(text):
    error = received([("nsm-remedy", text), ("nsm-tried", text)])
    assert (error.remedy, error.tried) == ("", ())


def test_a_peer_cannot_send_more_than_is_shown():
    error = received([("nsm-remedy", '"' + "x" * 4000 + '"'), ("nsm-tried", '[["' + "n" * 1000 + '","\\u001b[2J"]]')])
    assert len(error.remedy) <= 300
    (tried,) = error.tried
    assert len(tried.name) <= 128
    assert "\x1b" not in tried.sentence


def test_they_are_left_out_where_the_callers_headers_have_no_room():
    assert "nsm-remedy" in dict(_status(FULL, 8192))
    assert [name for name, _ in _status(FULL, 540)] == ["grpc-status", "grpc-message"]


def test_several_failures_list_all_answers_and_the_first_remedy():
    other = NotFound("gone", tried=[Tried("behind", "closed")])
    error = all_failed("forwarders", [("one", FULL), ("two", other), ("three", NotFound("no"))])
    assert [each.name for each in error.tried] == ["nse", "behind", "three"]
    assert error.remedy == FULL.remedy
