"""A capture file as its readers see it, read here by the draft's rules."""

import io
import struct

from nsm.operate.probes.pcapng import Writer
from nsm.operate.probes.ring import ETHERNET, RAW, Packet


def blocks(data):
    """The type and the body of each block; both sizes of a block have to agree."""
    found, place = [], 0
    while place < len(data):
        kind, size = struct.unpack_from("=II", data, place)
        assert size % 4 == 0
        assert struct.unpack_from("=I", data, place + size - 4) == (size,)
        found.append((kind, data[place + 8 : place + size - 4]))
        place += size
    return found


def options(body):
    """The options at the end of a block: codes and values, closed by an end of options."""
    found, place = [], 0
    while True:
        code, size = struct.unpack_from("=HH", body, place)
        if code == 0:
            assert place + 4 == len(body)
            return found
        found.append((code, body[place + 4 : place + 4 + size]))
        place += 4 + size + -size % 4


def test_wireshark_is_told_the_wire_and_the_names_of_its_interfaces():
    file = io.BytesIO()
    writer = Writer(file, "client/nsm-1 to nse")
    writer.add("client/nsm-1", "the client's end", ETHERNET, "icmp")
    writer.add("nse/abc", "the endpoint's end", RAW, "")
    time = 1_700_000_000_123_456_789
    writer.packet(1, Packet(time, b"12345", 1500, True), "odd")
    writer.statistics(1, time, 3)
    section, one, other, packet, statistics = blocks(file.getvalue())
    assert (section[0], section[1][:8]) == (0x0A0D0D0A, struct.pack("=IHH", 0x1A2B3C4D, 1, 0))
    assert (1, b"client/nsm-1 to nse") in options(section[1][16:])
    assert (4, b"nsm capture") in options(section[1][16:])
    assert (one[0], struct.unpack_from("=HHI", one[1])[0]) == (1, 1)
    assert options(one[1][8:]) == [(2, b"client/nsm-1"), (3, b"the client's end"), (9, b"\x09"), (11, b"\0icmp")]
    assert struct.unpack_from("=H", other[1]) == (101,)
    assert packet[0] == 6
    interface, high, low, kept, length = struct.unpack_from("=IIIII", packet[1])
    assert (interface, high << 32 | low, kept, length) == (1, time, 5, 1500)
    assert packet[1][20:28] == b"12345\0\0\0"
    assert options(packet[1][28:]) == [(2, struct.pack("=I", 2)), (1, b"odd")]
    assert statistics[0] == 5
    assert options(statistics[1][12:]) == [(5, struct.pack("=Q", 3))]
