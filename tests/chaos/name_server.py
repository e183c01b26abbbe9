"""Answers every question for an address: `python name_server.py ADDRESS` needs nothing but Python.

It listens on port 53 of all addresses, also those that the endpoint of its namespace will have. Answers may be kept for
a second, so that names soon follow a wire that leads elsewhere.
"""

import socket
import struct
import sys

ANSWERED, TTL = 0x8400, 1
IP_PKTINFO = 8
"""Of linux/in.h, which this Python does not name."""


def answer(question, address):
    """The message that answers `question`, which has one name (RFC 1035)."""
    end = question.index(b"\0", 12) + 5
    is_for_ipv4 = question[end - 4 : end - 2] == b"\0\x01"
    head = question[:2] + struct.pack("!HHHHH", ANSWERED, 1, is_for_ipv4, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, TTL, 4) + socket.inet_aton(address)
    return head + question[12:end] + (record if is_for_ipv4 else b"")


def serve(address):
    """Without end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        server.bind(("", 53))
        while True:
            question, ancillary, _, peer = server.recvmsg(512, 64)
            server.sendmsg([answer(question, address)], _from_where_it_came(ancillary), 0, peer)


def _from_where_it_came(ancillary):
    """Each wire has an address of its own, and an answer counts only if it is from the one that was asked."""
    ((level, kind, data),) = ancillary
    _, local, _ = struct.unpack("=I4s4s", data)
    return [(level, kind, struct.pack("=I4s4s", 0, local, bytes(4)))]


if __name__ == "__main__":
    serve(sys.argv[1])
