"""The patch maker, against a library that applies patches."""

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from nsm.webhook.jsonpatch import difference

keys = st.sampled_from(["a", "b", "a/b", "~", "~1", "", "é"])
leaves = st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", "é"])
documents = st.dictionaries(
    keys, st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
)


@given(documents, documents)
def test_applying_it_makes_the_one_out_of_the_other(before, after):
    assert jsonpatch.apply_patch(before, difference(before, after)) == after


@given(documents)
def test_there_is_none_between_equals(document):
    assert difference(document, document) == []


def test_the_path_is_that_of_the_document_around_it():
    patch = difference({"labels": {"a/b": "1"}}, {"labels": {"a/b": "2"}}, ["spec", "template"])
    assert patch == [{"op": "add", "path": "/spec/template/labels/a~1b", "value": "2"}]
