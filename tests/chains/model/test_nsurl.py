"""The URLs of clients: what they mean is what upstream's clients make of them."""

import pytest

from nsm.chains.model.interface_name import fault
from nsm.chains.model.nsurl import parse_nsurl, parse_strict_nsurl


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
    with pytest.raises(ValueError, match="names no service|cannot be parsed"):
        parse_nsurl(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kernel://ns?app", "label 'app' has no =; expected ?label=value&label=value"),
        ("kernel://ns?", "label '' has no ="),
        ("kernel://ns?a=1&&b=2", "label '' has no ="),
        ("kernel://ns?=web", "label '=web' has no name"),
        ("kernel://ns?a=1;b=2", "label 'a=1;b=2' has a semicolon (write %3B for it)"),
        ("kernel://ns?a=%zz", "label 'a=%zz' has a % without two hexadecimal digits"),
        ("kernel://ns/nsm-1#?app=web", "has a #, which would hide the rest"),
        ("kernel://", "names no service"),
    ],
)
def test_a_label_that_would_be_dropped_is_told_where_somebody_wrote_it(url, told):
    """Without it the wire leads to another endpoint."""
    with pytest.raises(ValueError) as caught:
        parse_strict_nsurl(url)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "url", ["kernel://ns", "kernel://ns/nsm-1?a=b&c=", "kernel://a@b/i?x=%20y", "memif://ns?a=b+c"]
)
def test_what_is_well_is_read_as_upstream_reads_it(url):
    assert parse_strict_nsurl(url) == parse_nsurl(url)


@pytest.mark.parametrize("name", ["lo", "all", "default", ".", "..", "gre0", "sit0", "ip6_vti0", "bonding_masters"])
def test_a_name_that_the_kernel_keeps_is_none_of_an_interface(name):
    """A client asked for it for ever: the kernel has it, or has a folder of settings that is called so."""
    assert "choose another, such as nsm-1" in fault(name)


@pytest.mark.parametrize("name", ["nsm-1", "all0", "lo0", "gre", "eth0", "1", "@x"])
def test_a_name_that_is_like_one_of_the_kernel_s_is_fine(name):
    assert fault(name) is None
