"""Records of one kind in etcd, as a backend of a registry."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from nsm.apis import codec
from nsm.apis.etcd import (
    Compare,
    CompareCompareTarget,
    DeleteRangeRequest,
    EventEventType,
    InnerRequestOp,
    InnerTxnRequest,
    KeyValue,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    StoredRecord,
    TxnRequest,
    WatchCreateRequest,
)
from nsm.chains.core import Backoff, Kind, MeshError, R, Tasks, Unavailable
from nsm.chains.logs import log
from nsm.chains.registry.stored import Backend, Changed, Entry, Key
from nsm.chains.registry.stored.backend import Observe

from .client import Compacted, Etcd, prefix_end

_PAGE = 500
"""The most keys in one response."""
_MOST_AT_ONCE, _MOST_BYTES = 100, 512 * 1024
"""Writes in one transaction, and their bytes: etcd takes 128 operations and 1.5 MiB, unless it is told otherwise."""
_LOOK = 2.0
"""Seconds between checks whether the cluster responds: a watch alone does not reveal that it is down."""


@dataclass(slots=True)
class _Write:
    """One write that waits for its turn, and the revision at which it was made."""

    key: bytes
    request: InnerTxnRequest
    size: int
    done: asyncio.Future[int]
    is_alone: bool = False
    """Whether it is sent by itself, since a transaction with others was refused."""


class EtcdBackend(Backend[R]):
    """Keys `PREFIX/KIND/NAME`. The revision of a key's last change is its version.

    Keys that no running registry removes expire by a lease after `keep` seconds.
    """

    def __init__(self, etcd: Etcd, kind: Kind[R], prefix: str, *, keep: float) -> None:
        """`keep` 0 means forever."""
        self._etcd, self._kind = etcd, kind
        self._prefix = f"{prefix}/{kind.record.__name__}/".encode()
        self._keep = math.ceil(keep)
        self._lease, self._lease_until = 0, 0.0
        self._leasing = asyncio.Lock()
        self._waiting: deque[_Write] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._known: dict[Key, int] = {}
        self._revision = 0
        self._trouble: MeshError | None = None
        self._listed = asyncio.Event()
        self._tasks = Tasks(f"etcd {kind.record.__name__}")
        self._observe: Observe[R] = lambda *_: None

    def __str__(self) -> str:
        return str(self._etcd)

    @property
    def is_cut_off(self) -> bool:
        """Whether the cluster does not respond, or has no quorum."""
        return self._trouble is not None

    def observe(self, observe: Observe[R]) -> None:
        """Report to `observe`."""
        self._observe = observe

    async def __aenter__(self) -> EtcdBackend[R]:
        self._tasks.spawn(self._keep_up(), name=f"watch {self._kind.noun}s")
        self._tasks.spawn(self._look(), name="look whether etcd answers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    async def synced(self) -> None:
        """Wait until all keys have been listed once."""
        await self._listed.wait()

    def key_of(self, name: str) -> Key:
        """The name."""
        return name

    async def get(self, key: Key) -> Entry[R] | None:
        """The stored entry, by a quorum read."""
        answer = await self._etcd.range(RangeRequest(key=self._path(key)))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Write it. Raises `Changed`, `Unavailable`."""
        path, renewed = self._path(record.name), time.time()
        data = codec.encode(record)
        value = StoredRecord(renewed=round(renewed * 1000), record=data)
        put = PutRequest(key=path, value=codec.encode(value), lease=await self._lease_to_use())
        revision = await self._transact(path, held, InnerRequestOp(request_put=put), len(put.value))
        return self._as_entry(record.name, revision, record, renewed, len(data))

    async def delete(self, held: Entry[R]) -> None:
        """Delete it. Raises `Changed`, `Unavailable`."""
        path = self._path(held.key)
        await self._transact(path, held, InnerRequestOp(request_delete_range=DeleteRangeRequest(key=path)))

    def complain(self, about: Entry[R], fault: str) -> None:
        """In the log."""
        log.warning("record ignored", store=str(self._etcd), record=about.place, fault=fault)

    async def _transact(self, path: bytes, held: Entry[R] | None, write: InnerRequestOp, size: int = 0) -> int:
        """Write if `held` is still the current entry; returns the revision."""
        version = held.version if held is not None else 0
        unchanged = Compare(target=CompareCompareTarget.MOD, key=path, mod_revision=version)
        request = InnerTxnRequest(compare=[unchanged], success=[write])
        waiting = _Write(path, request, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writer is None or self._writer.done():
            self._writer = self._tasks.spawn(self._write_all(), name=f"write {self._kind.noun}s")
        return await waiting.done

    async def _write_all(self) -> None:
        """Send everything that waits, in consecutive transactions: each costs the cluster the same."""
        while batch := self._next_batch():
            try:
                await self._send(batch)
            except Unavailable as error:
                _fail(batch, error)
            except MeshError as error:
                if len(batch) == 1:
                    _fail(batch, error)
                    continue
                for write in reversed(batch):  # separately: none fails because of another
                    self._waiting.appendleft(write)
                    write.is_alone = True

    def _next_batch(self) -> list[_Write]:
        batch: list[_Write] = []
        keys, size = set[bytes](), 0
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            write = self._waiting[0]
            if batch and (write.is_alone or write.key in keys or size + write.size > _MOST_BYTES):
                break
            self._waiting.popleft()
            if write.done.done():
                continue  # its caller has given up
            batch.append(write)
            keys.add(write.key)
            size += write.size
            if write.is_alone:
                break
        return batch

    async def _send(self, batch: Sequence[_Write]) -> None:
        """One transaction: each write is one inside it, with a comparison of its own."""
        inner = [RequestOp(request_txn=write.request) for write in batch]
        answer = await self._etcd.transact(TxnRequest(success=inner))
        made = [each.response_txn is not None and each.response_txn.succeeded for each in answer.responses]
        assert answer.header is not None
        for write, is_made in zip(batch, made, strict=True):
            if write.done.done():
                continue
            if is_made:
                write.done.set_result(answer.header.revision)
            else:
                write.done.set_exception(Changed())

    async def _lease_to_use(self) -> int:
        """A lease shared by all writes for some time; a renewed record moves to a newer lease."""
        if not self._keep:
            return 0
        async with self._leasing:
            now = asyncio.get_running_loop().time()
            if now >= self._lease_until:
                granted = await self._etcd.grant(LeaseGrantRequest(ttl=self._keep))
                self._lease, self._lease_until = granted.id, now + min(self._keep / 4, 3600.0)
            return self._lease

    async def _keep_up(self) -> None:
        waits = Backoff()
        while True:
            try:
                if not self._revision:
                    await self._list()
                await self._watch(waits)
            except Compacted:
                self._revision = 0
            except MeshError as error:
                self._fails(error)
            await asyncio.sleep(waits.next())

    async def _list(self) -> None:
        """Read all keys at one revision; missing keys were deleted."""
        revision, start, there = 0, self._prefix, set[Key]()
        end = prefix_end(self._prefix)
        while True:
            page = await self._etcd.range(RangeRequest(key=start, range_end=end, limit=_PAGE, revision=revision))
            assert page.header is not None
            revision = revision or page.header.revision
            for found in page.kvs:
                there.add(self._take(found))
            if not page.more:
                break
            start = page.kvs[-1].key + b"\0"
        for key in self._known.keys() - there:
            self._drop(key)
        self._revision = revision
        self._works()
        self._listed.set()

    async def _watch(self, waits: Backoff) -> None:
        create = WatchCreateRequest(
            key=self._prefix, range_end=prefix_end(self._prefix), start_revision=self._revision + 1, fragment=True
        )
        async for response in self._etcd.watch(create):
            waits.reset()
            for event in response.events:
                assert event.kv is not None
                if event.type == EventEventType.DELETE:
                    self._drop(self._name_in(event.kv))
                else:
                    self._take(event.kv)
                self._revision = max(self._revision, event.kv.mod_revision)
            self._works()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if self._listed.is_set():
                try:
                    await self._etcd.range(RangeRequest(key=self._prefix, limit=1))
                except MeshError as error:
                    self._fails(error)
                else:
                    self._works()

    def _take(self, found: KeyValue) -> Key:
        entry = self._entry(found)
        self._known[entry.key] = entry.version
        if entry.record is None:
            self.complain(entry, "its value is not a valid record")
        else:
            self._observe(entry.key, entry)
        return entry.key

    def _drop(self, key: Key) -> None:
        self._known.pop(key, None)
        self._observe(key, None)

    def _fails(self, error: MeshError) -> None:
        if self._trouble is None or str(self._trouble) != str(error):
            log.warning("cannot follow the store", error=str(error))
        self._trouble = error

    def _works(self) -> None:
        if self._trouble is not None:
            log.info("the store can be followed again", store=str(self._etcd))
        self._trouble = None

    def _path(self, key: Key) -> bytes:
        return self._prefix + str(key).encode()

    def _name_in(self, found: KeyValue) -> str:
        return found.key.removeprefix(self._prefix).decode(errors="replace")

    def _entry(self, found: KeyValue) -> Entry[R]:
        name = self._name_in(found)
        record: R | None = None
        renewed, size = 0.0, 0
        try:
            stored = codec.decode(StoredRecord, found.value)
            renewed, size = stored.renewed / 1000, len(stored.record)
            record = codec.decode(self._kind.record, stored.record)
        except codec.DecodeError:
            pass
        if record is not None and record.name != name:
            record = None
        return self._as_entry(name, found.mod_revision, record, renewed, size)

    def _as_entry(self, name: str, revision: int, record: R | None, renewed: float, size: int) -> Entry[R]:
        return Entry(name, revision, record, renewed, place=f"the {self._kind.noun} {name!r}", size=size)


def _fail(batch: Sequence[_Write], error: Exception) -> None:
    for write in batch:
        if not write.done.done():
            write.done.set_exception(error)
