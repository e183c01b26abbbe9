"""What is wrong in a document is told by the path of its field, with what was expected."""

import pytest

from nsm.chains.reading import Field
from nsm.chains.reading.fields import is_foreign

KNOWN = {"name", "weight", "labels"}


def read(value, **options):
    return Field(value, "routes[0]").fields(KNOWN, "a route", **options)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"nmae": "x"}, "routes[0].nmae is not a field of a route; expected name"),
        ({"colour": "x"}, "routes[0].colour is not a field of a route; expected labels, name or weight"),
        ({"Weight": 1}, "routes[0].Weight is not a field of a route; expected weight"),
        ({"old": 1}, "routes[0].old is the spelling from before NSM 1.0; expected name"),
        ({7: 1}, "routes[0] has the key 7, which is not a field of a route; expected text"),
        ({"x" * 90: 1}, "routes[0].'xxxxxx"),
        ({"a\nb": 1}, "routes[0].'a\\nb' is not a field of a route"),
        ([], "routes[0] is []; expected an object"),
        (None, "routes[0] is None; expected an object"),
    ],
)
def test_a_key_that_is_not_known_is_named_with_the_nearest_one(value, told):
    with pytest.raises(ValueError) as caught:
        read(value, former={"old": "name"})
    assert str(caught.value).startswith(told)


def test_what_may_be_extended_may_have_more_fields_but_none_that_is_like_ours():
    assert read({"colour": 1, "name": "x"}, extensible=True)["name"].text() == "x"
    for key in ("nmae", "label", "LABELS", "route_weight"):
        assert not is_foreign(key, KNOWN)
        with pytest.raises(ValueError, match="is not a field of a route"):
            read({key: 1}, extensible=True)


def test_what_is_missing_or_null_is_the_empty_value_of_its_shape():
    for fields in (read({}), read(dict.fromkeys(KNOWN))):
        name, labels, weight = fields["name"], fields["labels"], fields["weight"]
        assert not name
        assert (name.text(), name.texts(), name.text_or_number(), name.flag()) == ("", [], "", False)
        assert (labels.labels(), labels.each(), weight.whole(1, 5)) == ({}, [], 0)


@pytest.mark.parametrize(
    ("value", "shape", "told"),
    [
        (5, Field.text, "f is 5; expected text"),
        (["a", 1], Field.texts, "f[1] is 1; expected text"),
        ("a", Field.texts, "f is 'a'; expected a list"),
        ({"a": 1}, Field.labels, "f.a is 1; expected text"),
        ({1: "a"}, Field.labels, "f has the key 1; expected text, in quotes if need be"),
        ("a", Field.labels, "f is 'a'; expected an object"),
        ("yes", Field.flag, "f is 'yes'; expected true or false"),
        (True, Field.text_or_number, "f is True; expected a text or a number"),
        (1.5, lambda field: field.whole(0, 9), "f is 1.5; expected a whole number"),
        (True, lambda field: field.whole(0, 9), "f is True; expected a whole number"),
        (10, lambda field: field.whole(0, 9), "f is 10; expected 0 to 9"),
    ],
)
def test_a_value_of_another_shape_is_named_with_what_would_do(value, shape, told):
    with pytest.raises(ValueError) as caught:
        shape(Field(value, "f"))
    assert str(caught.value) == told


def test_values_of_their_shape_are_given():
    assert Field(80, "f").text_or_number() == "80"
    assert Field("80-90", "f").text_or_number() == "80-90"
    assert Field({"a": "b"}, "f").labels() == {"a": "b"}
    assert [item.path for item in Field([1, 2], "f").each()] == ["f[0]", "f[1]"]
    assert Field(9, "f").whole(0, 9) == 9
    assert Field(False, "f").flag() is False


def test_a_text_with_half_a_character_is_none():
    """JSON may have it, and no message can carry it: a record with it could be read, and sent to nobody."""
    with pytest.raises(ValueError, match="url is .* expected text of whole characters"):
        Field("tcp://\ud800:1", "url").text()
    with pytest.raises(ValueError, match="labels has the key .*half a character"):
        Field({"\udfff": "x"}, "labels").labels()
