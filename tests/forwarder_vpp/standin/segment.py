"""The counters of a stand-in, in shared memory as VPP lays them out (stats segment, version 2)."""

import asyncio
import contextlib
import mmap
import os
import socket
import struct

_SIZE = 1 << 20
_BASE = 0x130000000
"""Where VPP has the segment in its own memory: what its addresses count from."""
_HEADER = struct.Struct("=5Q")
_ENTRY = struct.Struct("=I4xQ128s")
_NAME_VECTOR, _SIMPLE, _COMBINED = 4, 2, 3


class Segment:
    """Counters by the index of an interface: of `threads` threads, which a reader adds up."""

    def __init__(self, threads=2):
        self._threads = threads
        self._descriptor = os.memfd_create("standin-stats", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, _SIZE)
        self._memory = mmap.mmap(self._descriptor, _SIZE)
        self._changes = 0
        self.counted = {}
        """(rx packets, rx bytes, tx packets, tx bytes, drops) by index."""
        self.write()

    def count(self, index, rx=(0, 0), tx=(0, 0), drops=0):
        """Set the counters of an interface."""
        self.counted[index] = (*rx, *tx, drops)
        self.write()

    def write(self):
        """Write all of it anew, as VPP does when an interface is made: a reader sees that it changed."""
        self._changes += 1
        _HEADER.pack_into(self._memory, 0, 2, _BASE, self._changes, 1, 0)
        self._end = _HEADER.size
        rows = [self.counted.get(index, (0,) * 5) for index in range(max(self.counted, default=-1) + 1)]
        entries = [
            (b"/sys/heartbeat", 1, self._changes),
            (b"/if/rx", _COMBINED, self._pairs([row[:2] for row in rows])),
            (b"/if/tx", _COMBINED, self._pairs([row[2:4] for row in rows])),
            (b"/if/drops", _SIMPLE, self._numbers([row[4] for row in rows])),
        ]
        directory = self._vector(len(entries), b"".join(_ENTRY.pack(kind, data, name) for name, kind, data in entries))
        _HEADER.pack_into(self._memory, 0, 2, _BASE, self._changes, 0, directory)

    def _vector(self, length, data):
        """A vector's address; its length is before it."""
        at = (self._end + 8 + 15) & ~15
        struct.pack_into("=I", self._memory, at - 8, length)
        self._memory[at : at + len(data)] = data
        self._end = at + len(data)
        return _BASE + at

    def _per_thread(self, vectors):
        return self._vector(len(vectors), struct.pack(f"={len(vectors)}Q", *vectors))

    def _pairs(self, rows):
        """The first thread has all but one packet, the last one that."""
        first = b"".join(struct.pack("=QQ", packets - bool(packets), size) for packets, size in rows)
        last = b"".join(struct.pack("=QQ", bool(packets), 0) for packets, _ in rows)
        return self._per_thread([self._vector(len(rows), first), self._vector(len(rows), last)])

    def _numbers(self, numbers):
        return self._per_thread([self._vector(len(numbers), struct.pack(f"={len(numbers)}Q", *numbers))])

    def close(self):
        self._memory.close()
        os.close(self._descriptor)

    @contextlib.asynccontextmanager
    async def serving(self, path):
        """Hand the segment out to whoever connects."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(path))
            listening.listen()
            listening.setblocking(False)
            task = asyncio.create_task(self._hand_out(listening))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _hand_out(self, listening):
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            with connection, contextlib.suppress(OSError):
                socket.send_fds(connection, [b"\0"], [self._descriptor])
