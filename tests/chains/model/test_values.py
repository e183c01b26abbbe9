"""What values from outside may be, kind by kind."""

import pytest

from nsm.chains.core import InvalidRequest
from nsm.chains.model import values
from nsm.chains.model.values import check, read_number

GOOD = {
    "NAME": ["", "two words", "icmp-responder", "nse@my.domain", "nsc-0", "Forwarder_VPP", "a/b", "пинг", "x" * 512],
    "LABEL": ["", "two words", "{{ .podName }}", "1,2"],
    "FREE": ["-t nat -A POSTROUTING -o {{ .NsmInterfaceName }};-t nat -L"],
    "URL": ["unix:///var/lib/nsm/nsm.io.sock", "inode://4/4026532281", "tcp://[fd00::1]:5001", "registry:5002"],
    "INTERFACE": ["", "nsm-1", "a@b", "x" * 15],
    "INTERFACE_ADDRESS": ["10.0.0.1/32", "fd00::1/64"],
    "NEXT_HOP": ["", "10.0.0.1", "fd00::1"],
    "MAC": ["02:00:00:00:00:01", "AA:BB:cc:dd:ee:ff"],
    "PCI": ["", "0000:3b:02.1", "3b:02.7"],
    "PORT": ["", "0", "4789", "65535"],
    "FLAG": ["", "true", "false", "1"],
    "DNS_SERVER": ["10.0.0.53", "fe80::1%eth0"],
    "DNS_DOMAIN": ["example.org", "my-vl3@my.domain."],
    "EXCLUDED_PREFIX": ["10.0.0.0/8", "anything"],
}
BAD = {
    "NAME": [
        "x" * 513,
        "a\nb",
        "a\x00b",
        "\x1b[2J",
        "a\u202eb",
        "a\u200bb",
        "a\u2066b",
        "a\x85b",
        "a\x7fb",
        "\ud800",
    ],
    "LABEL": ["a\nb", "\x1b]0;x\x07", "\ufeff", "x" * 1025],
    "FREE": ["a\r\nb", "x" * 4097],
    "INTERFACE": ["eth%d", "a/b", "a b", "..", "all", "default", "x" * 16, "a:b", "a\n", "\xe0", "a\u202e"],
    "INTERFACE_ADDRESS": [
        "",
        "10.0.0.1",
        "10.0.0.1/33",
        "10.0.0.1/255.0.0.0",
        "fe80::1%eth0/64",
        "1" * 9000,
        "10.0.0.1/" + "0" * 90,
    ],
    "NEXT_HOP": ["10.0.0.1/32", "fe80::1%eth0", "gateway", "1" * 9000],
    "MAC": ["", "02:00:00:00:00", "02-00-00-00-00-01", "zz:00:00:00:00:01", "02:00:00:00:00:01:02", "0" * 9000],
    "PCI": ["../../etc", "0000:3b:02.8"],
    "PORT": ["65536", "-1", "http", "1" * 5000, "\u0663", "1.0"],
    "FLAG": ["yes", "1" * 9000],
    "DNS_SERVER": ["", "0.0.0.0", "224.0.0.1", "fe80::1%\x1b[2J", "dns.test"],
    "DNS_DOMAIN": ["a b", "evil\nnameserver 6.6.6.6", "x" * 256],
    "EXCLUDED_PREFIX": ["x" * 65, "a\nb"],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, each in GOOD.items() for value in each])
def test_what_upstream_sends_is_taken(kind, value):
    check(getattr(values, kind), value, "it")


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, each in BAD.items() for value in each])
def test_what_harms_is_refused_with_a_short_line_that_does_not_repeat_it(kind, value):
    with pytest.raises(InvalidRequest) as raised:
        check(getattr(values, kind), value, "label 3")
    told = str(raised.value)
    assert told.startswith("label 3 ")
    assert len(told) < 200
    assert told.isprintable()


def test_the_character_that_cannot_be_is_named_by_its_number_and_place():
    with pytest.raises(InvalidRequest, match=r"the id has a control or format character \(U\+202E\) at position 2"):
        check(values.NAME, "a\u202eb", "the id")


def test_a_number_of_thousands_of_digits_is_none():
    assert read_number("9" * 5000, 65535) is None
    assert read_number("65535", 65535) == 65535
