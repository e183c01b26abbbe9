"""Documents in which a key is given twice are none: one of its values would be dropped."""

import pytest

from nsm.chains.reading import read_json, read_yaml


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prefixes: [a]\nother: 1\nprefixes: [b]", "line 3: the key 'prefixes' is given twice"),
        ("a:\n  b: 1\n  b: 2", "line 3: the key 'b' is given twice"),
        ("{a: 1, a: 2}", "line 1: the key 'a' is given twice"),
        ("a: [", "while parsing"),
        ("[" * 5000, "it is nested too deep"),
        ("!!bool x", "a value does not match its tag"),
        ("!!python/name:os.system x", "could not determine a constructor"),
    ],
)
def test_yaml_that_cannot_be_used_is_told_in_one_line(text, told):
    with pytest.raises(ValueError) as caught:
        read_yaml(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_is_read_with_its_merges():
    assert read_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}
    assert read_yaml("1: a\n'1': b") == {1: "a", "1": "b"}
    assert read_yaml("") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "the key 'a' is given twice"),
        ("{\n,", "line 2: not valid JSON"),
        ("[" * 100_000, "it is nested too deep"),
    ],
)
def test_json_that_cannot_be_used_is_told_in_one_line(text, told):
    with pytest.raises(ValueError) as caught:
        read_json(text)
    assert told in str(caught.value)


def test_json_is_read():
    assert read_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
