"""Receives the packets of an interface, both directions, from a ring that the kernel fills (packet(7), TPACKET_V3)."""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .ends import End

ETHERNET, RAW = 1, 101
"""Types of links (LINKTYPE_ETHERNET, LINKTYPE_RAW): with RAW, packets begin with the header of IP."""
_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _V3 = 263, 5, 6, 10, 2
_SO_ATTACH_FILTER, _ALL, _OUTGOING = 26, 0x0003, 4
_BLOCK, _BLOCKS, _FRAME, _RETIRE_MS = 1 << 20, 8, 2048, 60
_STATUS, _USER, _HAS_VLAN = 8, 1, 0x10
_BLOCK_HEADER = struct.Struct("=III")
"""Status, number of packets, and where the first is; they begin 8 bytes into a block."""
_PACKET_HEADER = struct.Struct("=IIIIIIHHIIHH")
_ADDRESS, _ADDRESS_AT = struct.Struct("=HHiHBB"), 48
_ETHERNET_TYPES = {1, 772}
_REQUEST = struct.Struct("=7I")


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. `length` is that on the wire, of which `data` may be the beginning."""

    time_ns: int
    data: bytes
    length: int
    is_outgoing: bool
    """Whether this end sent it."""


class Ring:
    """The packets at one `end` that match `program`, from now on; see `filters`. Raises OSError. `close` it."""

    def __init__(self, end: End, program: bytes) -> None:
        self.end, self.drops = end, 0
        self._socket = end.inside(lambda: _opened(end, program))
        self._memory = mmap.mmap(self._socket.fileno(), _BLOCK * _BLOCKS)
        self._next = 0

    def fileno(self) -> int:
        """The descriptor, for `poll`: it is readable when packets have arrived, some 60 ms late at most."""
        return self._socket.fileno()

    @property
    def link_type(self) -> int:
        """`ETHERNET` or `RAW`."""
        return ETHERNET if self._socket.getsockname()[3] in _ETHERNET_TYPES else RAW

    def packets(self) -> Iterator[Packet]:
        """Those that have arrived."""
        for _ in range(_BLOCKS):
            begin = self._next * _BLOCK
            status, count, first = _BLOCK_HEADER.unpack_from(self._memory, begin + _STATUS)
            if not status & _USER:
                return
            place = begin + first
            for _ in range(count):
                step, packet = self._packet(place)
                yield packet
                place += step
            struct.pack_into("=I", self._memory, begin + _STATUS, 0)
            self._next = (self._next + 1) % _BLOCKS

    def dropped(self) -> int:
        """How many packets did not fit into the ring until now."""
        data = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12)  # which sets the kernel's counters to zero
        self.drops += struct.unpack("=III", data)[1]
        return self.drops

    def close(self) -> None:
        """Stop receiving."""
        self._memory.close()
        self._socket.close()

    def _packet(self, place: int) -> tuple[int, Packet]:
        step, seconds, nanoseconds, kept, length, status, mac, _, _, tag, kind, _ = _PACKET_HEADER.unpack_from(
            self._memory, place
        )
        data = self._memory[place + mac : place + mac + kept]
        if status & _HAS_VLAN:  # the kernel has taken the tag out of the header
            data, length = data[:12] + struct.pack("!HH", kind or 0x8100, tag & 0xFFFF) + data[12:], length + 4
        sender = _ADDRESS.unpack_from(self._memory, place + _ADDRESS_AT)
        return step, Packet(seconds * 1_000_000_000 + nanoseconds, data, length, sender[4] == _OUTGOING)


def _opened(end: End, program: bytes) -> socket.socket:
    """A socket that receives nothing before its filter and its interface are set."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        memory = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        sock.setsockopt(_SOL_PACKET, _VERSION, _V3)
        frames = _BLOCK // _FRAME * _BLOCKS
        sock.setsockopt(_SOL_PACKET, _RX_RING, _REQUEST.pack(_BLOCK, _BLOCKS, _FRAME, frames, _RETIRE_MS, 0, 0))
        sock.bind((end.link.name, _ALL))
    except OSError:
        sock.close()
        raise
    return sock
