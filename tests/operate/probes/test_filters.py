"""Filters that nobody can mean, and what a person is told; what filters match is tested in the kernel."""

import struct

import pytest

from nsm.operate.probes.filters import compiled


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("foo", "'foo' is not a test"),
        ("icmp tcp", "'tcp' is not expected there"),
        ("port http", "port 'http'"),
        ("port 65536", "port '65536'"),
        ("port", "ends where a port number is expected"),
        ("host", "ends where an address is expected"),
        ("host 10.0.0.300", "host '10.0.0.300'"),
        ("host 10.0.0.0/24", "host '10.0.0.0/24'"),
        ("net 10.0.0.1/24", "has host bits set"),
        ("icmp and", "ends where a test"),
        ("not", "ends where a test"),
        ("(icmp", "a bracket is not closed"),
        ("icmp)", "')' is not expected"),
        ("tcp src host 10.0.0.1", "'host' is not a test"),
        ("src icmp", "'icmp' is not a test"),
        (" ".join(["icmp or"] * 101), "more than 200 words"),
        (" or ".join(f"port {number}" for number in range(60)), "too long for the kernel"),
    ],
)
def test_a_word_that_is_wrong_is_named(words, told):
    with pytest.raises(ValueError, match=".") as refused:
        compiled(words)
    assert told in str(refused.value)


def test_an_empty_filter_keeps_every_packet():
    """One instruction: return the number of bytes to keep."""
    assert struct.unpack("=HBBI", compiled("", 64)) == (0x06, 0, 0, 64)


@pytest.mark.parametrize(
    "words", ["icmp", "not arp and (tcp port 80 or udp)", "net fc00::/7", "net 0.0.0.0/0", "net ::/0"]
)
def test_every_jump_ends_inside_the_program_at_a_return(words):
    program = [struct.unpack_from("=HBBI", code) for code in _instructions(compiled(words))]
    for place, (code, yes, no, _) in enumerate(program):
        assert code == 0x06 or place + 1 + max(yes, no) < len(program)
    assert [code for code, *_ in program[-2:]] == [0x06, 0x06]


def _instructions(program):
    return [program[place : place + 8] for place in range(0, len(program), 8)]
