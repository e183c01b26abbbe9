"""The line that a person sees for a packet."""

import pytest

from nsm.operate.probes.decode import summary
from nsm.operate.probes.ring import ETHERNET, RAW

MACS = bytes.fromhex("020000000002020000000001")
IP4 = "4500001c00004000400100000a0000010a000000"
IP6 = (
    "60000000{:04x}{:02x}40" + "fd00000000000000000000000000000 1".replace(" ", "") + "fd000000000000000000000000000000"
)


def frame(kind, text):
    return MACS + bytes.fromhex(kind + text)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (frame("0800", IP4 + "0800000000070003"), "10.0.0.1 > 10.0.0.0 ICMP echo request id 7 seq 3"),
        (frame("0800", IP4 + "0303000000000000"), "10.0.0.1 > 10.0.0.0 ICMP destination unreachable (port)"),
        (
            frame("0806", "00010800060400010200000000010a0000010000000000000a000000"),
            "ARP who has 10.0.0.0? tell 10.0.0.1",
        ),
        (
            frame("0806", "00010800060400020200000000010a0000010200000000020a000000"),
            "ARP 10.0.0.1 is at 02:00:00:00:00:01",
        ),
        (
            frame("86dd", IP6.format(8, 58) + "8100000000010002"),
            "fd00::1 > fd00:: ICMPv6 echo reply id 1 seq 2",
        ),
        (
            frame("86dd", IP6.format(24, 58) + "8700000000000000" + "fd" + "00" * 15),
            "fd00::1 > fd00:: ICMPv6 neighbor solicitation fd00::",
        ),
        (
            frame("0800", "4500002d00004000400600000a0000010a000000c000005000000001000000025018ffff0000000068696a6b6c"),
            "10.0.0.1:49152 > 10.0.0.0:80 TCP PSH,ACK seq 1 ack 2 win 65535 len 5",
        ),
        (
            frame("86dd", IP6.format(20, 6) + "c000005000000001000000005002ffff00000000"),
            "[fd00::1]:49152 > [fd00::]:80 TCP SYN seq 1 ack 0 win 65535 len 0",
        ),
        (
            frame(
                "0800",
                "450000390000400040110000"
                "0a0000010a000000"
                "c0000035"
                "00250000"
                "000101000001000000000000"
                "026e73036e736d0474657374"
                "0000010001",
            ),
            "10.0.0.1:49152 > 10.0.0.0:53 DNS query ns.nsm.test len 29",
        ),
        (frame("8100", "00070800" + IP4 + "0000000000070003"), "VLAN 7 10.0.0.1 > 10.0.0.0 ICMP echo reply id 7 seq 3"),
        (frame("0800", "4500001c00002001401100000a0000010a000000"), "10.0.0.1 > 10.0.0.0 fragment at 8"),
        (frame("88cc", "00"), "02:00:00:00:00:01 > 02:00:00:00:00:02 type 0x88cc"),
        (frame("0800", "45"), "cut off or malformed"),
        (b"", "cut off or malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_packet_is_a_line(data, line):
    assert summary(data, ETHERNET, 99).startswith(line)
    assert summary(data, ETHERNET, 99).endswith(", 99 bytes")


def test_a_packet_of_an_interface_without_ethernet_begins_with_ip():
    """As on an interface of WireGuard."""
    assert (
        summary(bytes.fromhex(IP4 + "0800000000070003"), RAW, 28)
        == "10.0.0.1 > 10.0.0.0 ICMP echo request id 7 seq 3, 28 bytes"
    )


def test_no_bytes_of_a_packet_can_stop_a_capture():
    """Every beginning of a packet has a line, and every packet of one byte repeated."""
    whole = frame("86dd", IP6.format(20, 0) + "3a00" + "00" * 6 + "8700000000000000" + "fd" * 16)
    for size in range(len(whole)):
        assert summary(whole[:size], ETHERNET, size)
    for value in range(256):
        for kind in (ETHERNET, RAW):
            assert summary(bytes([value]) * 80, kind, 80)
