"""The URLs of clients: what they mean is what upstream's clients make of them."""

import pytest

from nsm.chains.model.nsurl import parse_nsurl


def interface(url):
    return parse_nsurl(url).mechanism.parameters.get("name")


def test_the_interface_is_the_last_part_of_the_unescaped_path():
    assert interface("kernel://ns/a%2Fb") == "b"
    assert interface("kernel://ns/+") == "+"
    assert interface("kernel://ns") is None


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("kernel://[fd00::1]:5002/i", "fd00::1"),
        ("kernel://svc:@ns:", "svc@ns"),
        ("kernel://:secret@ns", "ns"),
        ("kernel://a%20b:c@ns", "a b@ns"),
        ("kernel://%C3%A9", "é"),
        ("kernel://a:1:2", "a:1"),
    ],
)
def test_what_the_service_is_called(url, service):
    assert parse_nsurl(url).network_service == service


def test_a_label_that_cannot_be_unescaped_is_passed_over():
    assert parse_nsurl("kernel://ns?a=%zz&b=1&c=1;d=2&e+f=g+h").labels == {"b": "1", "e f": "g h"}


@pytest.mark.parametrize(
    "url",
    [
        "kernel://",
        "kernel:ns",
        "//ns",
        "kernel://a b",
        "kernel://ns/%zz",
        "kernel://ns/a\nb",
        "kernel://ns:x",
        "kernel://%41",
        "kernel://[a]",
        "kernel://a[b",
        "kernel://ns#%zz",
        "1k://ns",
    ],
)
def test_a_url_that_upstream_would_not_take_is_refused(url):
    with pytest.raises(ValueError, match="names no service|cannot be read"):
        parse_nsurl(url)
