"""Headers on the wire (HPACK, RFC 7541). Most calls repeat the headers of the call before, so these are remembered.

A block that only refers to entries of the table means the same for as long as the table is unchanged. To keep it
unchanged, the one header that differs each time, `grpc-timeout`, is last and is kept out of the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import hpack
from hpack import HeaderTuple
from hpack.exceptions import OversizedHeaderListError
from hpack.table import table_entry_size

TIMEOUT = "grpc-timeout"
_REMEMBERED, _MOST = 16, 32
"""Blocks that are remembered for each direction of a connection, and the most bytes of a peer's block."""
_LITERAL = b"\x00" + bytes([len(TIMEOUT)]) + TIMEOUT.encode()
"""A header that is not put into the table: its name; a value's length, below 127, and the value follow."""
_INDEXED = re.compile(rb"[\x81-\xfe]*")
"""Headers in the table, as far as one byte can refer to them."""


class Encoder(hpack.Encoder):
    """Writes blocks of headers. A `grpc-timeout` has to be the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[tuple[str, str], ...], bytes] = {}

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """A block for `headers`: pairs of a name and a value."""
        last = b""
        if headers and headers[-1][0] == TIMEOUT and len(value := headers[-1][1].encode()) < 127:
            *headers, _ = headers
            last = _LITERAL + bytes([len(value)]) + value
        key, table = tuple(headers), self.header_table
        if table.resized:
            self._known.clear()
        elif (block := self._known.get(key)) is not None:
            return block + last
        before, was_resized = _state(table), table.resized
        block = super().encode(key, huffman)
        if _changed(table, before):
            self._known.clear()
        elif not was_resized and len(self._known) < _REMEMBERED:
            self._known[key] = block
        return block + last


class Decoder(hpack.Decoder):
    """Reads blocks of headers."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, tuple[list[HeaderTuple], int]] = {}
        """Headers, and their size."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """The headers of a block, as bytes if `raw`. Raises `hpack.HPACKError`."""
        end = _end_of_indexed(data)
        if not raw or not 0 < end <= _MOST:
            return self._read(data, raw)
        if (known := self._known.get(data[:end])) is None:
            headers = [*self._read(data[:end], raw)]
            known = headers, sum(table_entry_size(*header) for header in headers)
            if len(self._known) < _REMEMBERED:
                self._known[data[:end]] = known
        headers, size = known
        if end == len(data):
            return headers.copy()
        rest = [*self._read(data[end:], raw)]
        if size + sum(table_entry_size(*header) for header in rest) > self.max_header_list_size:
            raise OversizedHeaderListError(f"more than {self.max_header_list_size} bytes of headers")
        return headers + rest

    def _read(self, data: bytes, raw: bool) -> Iterable[HeaderTuple]:
        before = _state(self.header_table)
        headers = super().decode(data, raw)
        if _changed(self.header_table, before):
            self._known.clear()
        return headers


def _end_of_indexed(data: bytes) -> int:
    """The end of the references to the table; 0 if a change of the table's size follows, which has to be first."""
    indexed = _INDEXED.match(data)
    end = indexed.end() if indexed is not None else 0
    return 0 if data[end : end + 1] and data[end] & 0xE0 == 0x20 else end


def _state(table: Any) -> tuple[Any, int, int]:
    entries = table.dynamic_entries
    return entries[0] if entries else None, len(entries), table.maxsize


def _changed(table: Any, before: tuple[Any, int, int]) -> bool:
    """Whether an entry was added or removed: a new one is always first."""
    first, count, size = _state(table)
    return first is not before[0] or (count, size) != before[1:]
