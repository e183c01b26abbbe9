"""Writes captures for Wireshark (PCAP Next Generation, draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from typing import BinaryIO

from .ring import Packet

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER, _UNKNOWN_LENGTH = 0x1A2B3C4D, -1
_COMMENT, _HARDWARE, _SYSTEM, _APPLICATION = 1, 2, 3, 4
_NAME, _DESCRIPTION, _RESOLUTION, _FILTER = 2, 3, 9, 11
_FLAGS, _DROPS, _NANOSECONDS = 2, 5, 9
_INBOUND, _OUTBOUND = 1, 2
_LONGEST = 1 << 18
Option = tuple[int, bytes]


class Writer:
    """Writes one section to `file`; interfaces are numbered in the order of `add`. Raises OSError."""

    def __init__(self, file: BinaryIO, comment: str) -> None:
        self._file = file
        options = [
            (_COMMENT, comment.encode()),
            (_HARDWARE, platform.machine().encode()),
            (_SYSTEM, f"{platform.system()} {platform.release()}".encode()),
            (_APPLICATION, b"nsm capture"),
        ]
        self._write(_SECTION, struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH), options)

    def add(self, name: str, about: str, link_type: int, words: str) -> None:
        """Add an interface: its name and description, and the filter of its packets."""
        options = [(_NAME, name.encode()), (_DESCRIPTION, about.encode()), (_RESOLUTION, bytes([_NANOSECONDS]))]
        if words:
            options.append((_FILTER, b"\0" + words.encode()))
        self._write(_INTERFACE, struct.pack("=HHI", link_type, 0, _LONGEST), options)

    def packet(self, interface: int, packet: Packet, comment: str = "") -> None:
        """Write a packet of an interface."""
        time, data = packet.time_ns, packet.data
        head = struct.pack("=IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), packet.length)
        flags = struct.pack("=I", _OUTBOUND if packet.is_outgoing else _INBOUND)
        comments = [(_COMMENT, comment.encode())] if comment else []
        self._write(_PACKET, head + _padded(data), [(_FLAGS, flags), *comments])

    def statistics(self, interface: int, time_ns: int, drops: int) -> None:
        """Write how many packets of an interface were lost before they could be written."""
        head = struct.pack("=III", interface, time_ns >> 32, time_ns & 0xFFFFFFFF)
        self._write(_STATISTICS, head, [(_DROPS, struct.pack("=Q", drops))])

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def _write(self, kind: int, body: bytes, options: Sequence[Option]) -> None:
        body += b"".join(struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
        body += struct.pack("=HH", 0, 0)
        size = struct.pack("=I", len(body) + 12)
        self._file.write(struct.pack("=I", kind) + size + body + size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
