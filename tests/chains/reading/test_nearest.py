"""Which name was meant."""

import pytest

from nsm.chains.reading import any_of, instead_of, nearest

KNOWN = {"destination_selector", "source_selector", "weight", "nse"}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("destinationSelector", "destination_selector"),
        ("DESTINATION-SELECTOR", "destination_selector"),
        ("destination_selectr", "destination_selector"),
        ("sourceselector", "source_selector"),
        ("wieght", "weight"),
        ("colour", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_the_most_similar_name_is_meant_whatever_its_case_and_dashes(word, meant):
    assert nearest(word, KNOWN) == meant


def test_where_none_is_similar_all_are_told():
    assert instead_of("colour", {"b", "a", "c"}) == "a, b or c"
    assert instead_of("wait", {"weight"}) == "weight"
    assert any_of([]) == "nothing"
    assert any_of(["a"]) == "a"
