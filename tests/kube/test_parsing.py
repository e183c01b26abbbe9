"""JSON that is nested beyond reason does not hide the rest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm.kube import CONFIG_MAPS, Rejected, parsing

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_ten_thousand_levels_are_cut_and_what_stands_beside_them_is_read(brackets):
    deep = nested(10_000, *brackets) if brackets[0] == "[" else brackets[0] * 10_000 + "1" + brackets[1] * 10_000
    found = parsing.parsed(f'{{"one": [1, "a"], "deep": {deep}, "two": {{"b": "]}}"}}}}'.encode())
    assert (found["one"], found["two"]) == ([1, "a"], {"b": "]}"})
    depth = 0
    inner = found["deep"]
    while isinstance(inner, list | dict):
        inner, depth = next(iter(inner.values() if isinstance(inner, dict) else inner), None), depth + 1
    assert inner in (None, 1)
    assert depth >= 99


@given(values, values, st.booleans())
def test_what_is_nested_within_reason_is_not_changed(before, after, escaped):
    text = json.dumps([before, after], ensure_ascii=escaped)
    assert json.loads(parsing._flattened(text.encode())) == json.loads(text)


@pytest.mark.parametrize("text", [b"", b"{", b"[1,", b'{"a": nothing}', b"[" * 20_000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"Expecting|delimiter"):
        parsing.parsed(text)


async def test_an_object_that_is_nested_too_deep_to_be_written_is_refused_in_one_line(api):
    deep = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(Rejected, match="cannot create configmaps in namespace 'x': the object's content is nested"):
        await api.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": deep}, "x")
