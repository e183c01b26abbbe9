"""Which texts are addresses, for every program of the mesh alike."""

import pytest

from nsm.chains.model.addresses import read_address, read_interface


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("10.0.0.1/24", "10.0.0.1/24"),
        ("10.0.0.1/032", "10.0.0.1/32"),
        ("FD00::A/64", "fd00::a/64"),
        ("fd00::1.2.3.4/128", "fd00::102:304/128"),
        ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
        ("::ffff:10.0.0.1/24", "10.0.0.1/0"),
    ],
)
def test_prefixes_that_are_read(text, read):
    assert str(read_interface(text)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1/",
        "/24",
        "10.0.0.1/33",
        "10.0.0.1/+8",
        "10.0.0.1/255.255.255.0",
        "10.0.0.1/0.0.0.255",
        "10.0.0.01/32",
        "fd00::1%eth0/64",
        " 10.0.0.1/32",
        "10.0.0.1/\uff13\uff12",
        "10.0.0.1/9999",
        "10.0.0.1/24/24",
    ],
)
def test_prefixes_that_count_as_missing(text):
    assert read_interface(text) is None


def test_a_next_hop_has_no_zone_and_no_length():
    assert str(read_address("::ffff:10.0.0.1")) == "10.0.0.1"
    assert [read_address(text) for text in ("", "nope", "fe80::1%eth0", "10.0.0.1/32")] == [None] * 4
