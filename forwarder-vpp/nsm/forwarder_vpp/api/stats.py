"""Counters of VPP's interfaces, read from the memory that VPP shares (its stats segment, version 2).

VPP hands the segment to whoever connects to its stats socket. Reading it costs VPP nothing and waits for nothing: VPP
marks the moments in which it changes the directory, and counts the changes, so that a reader can tell whether what it
read belongs together.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from .errors import Malformed, Unreachable

_VERSION = 2
_HEADER = struct.Struct("=5Q")
"""Version, address of the segment in VPP, number of changes, whether one is going on, address of the directory."""
_ENTRY = struct.Struct("=I4xQ128s")
"""Kind, address of the data, name."""
_NUMBER = struct.Struct("=Q")
_PAIR = struct.Struct("=QQ")
"""Packets, bytes."""
_LENGTH = struct.Struct("=I")
_BEFORE = 8
"""Bytes before a vector, which begin with its length."""
_TRIES = 1000


@dataclass(frozen=True, slots=True)
class Counters:
    """What passed an interface since it was made, from VPP's view: ``rx`` is what VPP received."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    drops: int = 0


class Stats:
    """The stats segment of one running VPP. It outlives VPP, unchanged: open another one when VPP was restarted."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._places: dict[bytes, int] = {}
        """Where in the directory an entry was found last."""

    @classmethod
    async def open(cls, path: str, *, timeout: float = 2.0) -> Self:
        """Get the segment from the stats socket at `path`. Raises `Unreachable`, `Malformed` (another version)."""
        try:
            async with asyncio.timeout(timeout):
                descriptor = await _received(path)
        except TimeoutError:
            raise Unreachable(f"{path} does not hand out VPP's counters within {timeout:g} s") from None
        except OSError as error:
            raise Unreachable(f"cannot read VPP's counters from {path}: {error.strerror or error}") from None
        try:
            memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise Unreachable(f"what {path} hands out is not VPP's counters: {error}") from None
        finally:
            os.close(descriptor)
        version = _HEADER.unpack_from(memory)[0] if len(memory) >= _HEADER.size else "unknown (it is too short)"
        if version != _VERSION:
            memory.close()
            raise Malformed(f"the counters that {path} hands out have version {version}; expected {_VERSION}")
        return cls(memory)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def __enter__(self) -> Self:
        """Use the segment; it is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def interfaces(self, indices: Iterable[int]) -> dict[int, Counters]:
        """The counters of interfaces by their index (sw_if_index); zeros for one that VPP does not have.

        Raises `Malformed` if the segment cannot be read.
        """
        wanted = list(indices)
        for _ in range(_TRIES):
            _, _, changes, changing, _ = _HEADER.unpack_from(self._memory)
            if changing:
                continue
            try:
                found = self._read(wanted)
            except (struct.error, _ElsewhereError):
                found = None
            _, _, after, changing, _ = _HEADER.unpack_from(self._memory)
            if found is not None and after == changes and not changing:
                return found
        raise Malformed(
            "VPP's counters cannot be read: they change all the time, or VPP ended in the midst of a change"
        )

    def _read(self, wanted: list[int]) -> dict[int, Counters]:
        received, sent = self._pairs(b"/if/rx", wanted), self._pairs(b"/if/tx", wanted)
        drops = self._sums(b"/if/drops", wanted)
        return {
            index: Counters(*in_, *out, dropped)
            for index, in_, out, dropped in zip(wanted, received, sent, drops, strict=True)
        }

    def _pairs(self, name: bytes, wanted: list[int]) -> list[tuple[int, int]]:
        """Packets and bytes of each index, of all of VPP's threads."""
        threads = [self._vector(address) for address in self._addresses(self._entry(name))]
        sums = []
        for index in wanted:
            pairs = [_PAIR.unpack_from(self._memory, at + index * _PAIR.size) for at, n in threads if index < n]
            sums.append((sum(packets for packets, _ in pairs), sum(size for _, size in pairs)))
        return sums

    def _sums(self, name: bytes, wanted: list[int]) -> list[int]:
        threads = [self._vector(address) for address in self._addresses(self._entry(name))]
        return [sum(self._number(at + index * _NUMBER.size) for at, n in threads if index < n) for index in wanted]

    def _entry(self, name: bytes) -> int:
        """The address of the data of an entry; 0 if there is none."""
        at, entries = self._vector(_HEADER.unpack_from(self._memory)[4])
        if (place := self._places.get(name, entries)) < entries:
            _, address, found = _ENTRY.unpack_from(self._memory, at + place * _ENTRY.size)
            if found.split(b"\0", 1)[0] == name:
                return int(address)
        for place in range(entries):
            _, address, found = _ENTRY.unpack_from(self._memory, at + place * _ENTRY.size)
            if found.split(b"\0", 1)[0] == name:
                self._places[name] = place
                return int(address)
        return 0

    def _addresses(self, vector: int) -> list[int]:
        at, size = self._vector(vector)
        return [self._number(at + place * _NUMBER.size) for place in range(size)]

    def _vector(self, address: int) -> tuple[int, int]:
        """The position and the number of elements of a vector; none at address 0."""
        if not address:
            return 0, 0
        at = address - _HEADER.unpack_from(self._memory)[1]
        if not _BEFORE <= at < len(self._memory):
            raise _ElsewhereError
        return at, int(_LENGTH.unpack_from(self._memory, at - _BEFORE)[0])

    def _number(self, at: int) -> int:
        return int(_NUMBER.unpack_from(self._memory, at)[0])


class _ElsewhereError(Exception):
    """An address that is not in the segment: it was changed while it was read."""


async def _received(path: str) -> int:
    """The descriptor that the socket at `path` hands out."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, path)
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connection, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(connection)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not descriptors:
        raise OSError("it hands out nothing")
    return int(descriptors[0])
