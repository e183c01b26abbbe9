"""Causes and attempts in the metrics of a path segment."""

import json

import pytest

from nsm.chains.model.causes import (
    LONGEST,
    MOST_CANDIDATES,
    Attempt,
    Candidate,
    Cause,
    attempt_in,
    cause_in,
    moment,
    remove_cause,
    stamp,
)

CAUSE = Cause(
    "NotFound", "no endpoint of 'web' is registered", "start one", "discover", "forwarder", 1_700_000_000.25, True
)


def test_a_cause_travels_with_all_that_it_says():
    assert cause_in({"server_interface": "KERNEL/nsm-1", **CAUSE.metrics()}) == CAUSE


def test_a_segment_without_a_cause_has_none():
    assert cause_in({}) is None
    assert cause_in({"nsm_cause_code": "NotFound"}) is None


def test_a_removed_cause_leaves_the_other_metrics():
    metrics = {"server_interface": "KERNEL/nsm-1", **CAUSE.metrics()}
    remove_cause(metrics)
    assert metrics == {"server_interface": "KERNEL/nsm-1"}


def test_a_sentence_is_cut():
    assert len(Cause("X", "x" * 5000).metrics()["nsm_cause"]) == LONGEST


def test_an_attempt_travels_with_its_latest_candidates():
    attempt = Attempt(7, 1.0, 2.5)
    for number in range(MOST_CANDIDATES + 3):
        attempt.candidates[f"nse-{number}"] = Candidate(f"nse-{number}", f"full, {number}", number + 1, 2.5)
    found = attempt_in(attempt.metrics())
    assert (found.tries, found.first, found.last) == (7, 1.0, 2.5)
    assert [*found.candidates.values()] == [*attempt.candidates.values()][3:]


def test_a_connection_that_exists_is_no_attempt():
    assert attempt_in(CAUSE.metrics()) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '["a", "b", "c", "d"]', "[" * 5000, json.dumps(["a", 1, "2020-01-01T00:00:00Z"]), "null"]
)
def test_a_candidate_that_cannot_be_read_is_left_out(text):
    attempt = attempt_in({"nsm_tries": "2", "nsm_tried_0": text, "nsm_tried_1": json.dumps(["nse", 1, "", "full"])})
    assert [*attempt.candidates] == ["nse"]


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "9" * 30])
def test_figures_of_an_attempt_that_cannot_be_read_are_0(text):
    attempt = attempt_in({"nsm_tries": text, "nsm_first": text, "nsm_last": text})
    assert (attempt.tries, attempt.first, attempt.last) == (0, 0.0, 0.0)


def test_times_are_rfc_3339():
    assert stamp(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert moment("2023-11-14T22:13:20.250Z") == 1_700_000_000.25
