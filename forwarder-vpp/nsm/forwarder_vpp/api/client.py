"""A connection to a running VPP: calls, dumps and events over its API socket, from asyncio.

    async with await VPP.connect("/run/vpp/api.sock") as vpp:
        vpp.require("tap_create_v3", "sw_interface_set_flags")
        tap = await vpp.call("tap_create_v3", id=7, host_if_name="nsm-1", host_if_name_set=True)
        await vpp.call("sw_interface_set_flags", sw_if_index=tap.sw_if_index, flags=["IF_STATUS_API_FLAG_ADMIN_UP"])
        for interface in await vpp.dump("sw_interface_dump"):
            print(interface.interface_name, interface.tag)

One reader (the protocol of the socket) gives each reply to the call whose context it carries. Values in calls and
replies are those of Python: see `codec`.

VPP's own library, `vpp_papi` 2.4.2 on PyPI, is not used. As a whole: its client has threads and blocks; its asyncio
client puts no bound to calls and no time limit, and leaves whoever waits waiting for ever when VPP ends. It needs
VPP's API files, or requests all of them from VPP at each connection, and compiles a class for each message: 0.11 s of
processor time and 10 MB, where this takes 0.01 s and 1.2 MB (VPP 26.06 with 11 plugins). Its encoding: types are kept
in a table of the process by their name, so that two versions of VPP exclude each other; strings have to be ASCII; a
call takes 0.14 ms of processor time and 200 interfaces 29 ms, here 0.03 ms and 2 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any, Self

from .codec import Record
from .descriptions import Descriptions, Message, known
from .errors import Gone, Malformed, Rejected, Silent, UnknownMessage, Unreachable, VPPError

_FRAME = struct.Struct(">QII")
"""Before each message: eight bytes of no meaning, the message's length, four bytes of no meaning."""
_ID = struct.Struct(">H")
_CONTEXT = struct.Struct(">I")
_LARGEST = 4 << 20
"""Bytes of a message. The largest that we cause, the message table of VPP 26.06 with all plugins, has 0.2 MB."""
_CREATE, _CREATED = 15, 16
"""The only message numbers that are the same in every VPP: those that begin a connection over the socket."""
_PING, _PONG = "control_ping", "control_ping_reply"
_AGAIN = -165
"""The return value of a list that goes on at the cursor that comes with it."""
_EVENTS = 4096
"""Events that wait for their reader; see `Events`."""
_FORGOTTEN_AFTER = 30.0
"""Seconds after which a call that nobody waits for no longer counts as in flight, if VPP never answers it."""


class VPP:
    """A connection to one running VPP. Ends when VPP ends: a new process is a new connection, with other numbers.

    `version` is what VPP reports, such as ``26.06-release``; `process_id` is that of VPP in its own namespace.
    """

    def __init__(self, path: str, descriptions: Descriptions, *, timeout: float, in_flight: int) -> None:
        self.version = "of unknown version"
        self.process_id = 0
        self._path = path
        self._known = descriptions
        self._timeout = timeout
        self._turns = asyncio.Semaphore(in_flight)
        self._frames = _Frames(self._received, self._lost)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._checksums: dict[str, tuple[str, int]] = {}
        self._numbered: dict[int, Message] = {}
        self._index = 0
        self._context = 0
        self._waiting: dict[int, _Call] = {}
        self._listening: dict[str, set[Events]] = {}
        self._ended: asyncio.Future[VPPError] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls,
        path: str,
        *,
        name: str = "nsm",
        timeout: float = 2.0,
        in_flight: int = 64,
        descriptions: Descriptions | None = None,
    ) -> Self:
        """Connect to the API socket at `path`, and request the numbers and checksums of the running VPP's messages.

        `timeout` (s) is for connecting, and for each call that sets none; `in_flight` calls at most are sent before
        their replies arrive, others wait for their turn. `name` is what VPP's command line shows for the connection.
        Raises `Unreachable`, or what `call` raises.
        """
        vpp = cls(path, descriptions or known(), timeout=timeout, in_flight=in_flight)
        try:
            async with asyncio.timeout(timeout):
                await vpp._open(name)
                await vpp._introduce()
        except TimeoutError:
            await vpp.close()
            raise Unreachable(f"{path} accepts connections, but does not answer as VPP within {timeout:g} s") from None
        except BaseException:
            await vpp.close()
            raise
        return vpp

    async def __aenter__(self) -> Self:
        """Use the connection; it is closed at the end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def close(self, why: str = "this process closed its connection to VPP") -> None:
        """Close the connection; calls that wait end with `Gone`. VPP keeps what was configured, and ends the events."""
        self._end(Gone(why))

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return not self._ended.done()

    async def ended(self) -> VPPError:
        """Wait until the connection ends, for whatever reason, and return that."""
        return await asyncio.shield(self._ended)

    def has(self, message: str) -> bool:
        """Whether the running VPP has a message in a version that we know, with what it answers."""
        try:
            self.require(message)
        except UnknownMessage:
            return False
        return True

    def require(self, *messages: str) -> None:
        """Raise `UnknownMessage` for the first of these that the running VPP lacks or has changed."""
        for name in messages:
            self._numbered_as(name)
            service = self._known.service(name)
            for other in (service.reply, service.details, *service.events):
                if other:
                    self._numbered_as(other)

    async def call(
        self,
        message: str,
        /,
        *,
        timeout: float | None = None,
        fine: Collection[str] = (),
        late: Callable[[Record], None] | None = None,
        **fields: Any,
    ) -> Record:
        """Send a message and return its reply.

        Fields that are not given have VPP's default, which is zero unless its description says otherwise; the length
        of a list is filled in. Raises `Rejected` for a negative return value whose name (``NO_SUCH_ENTRY``) is not in
        `fine`; `UnknownMessage`, `Gone`, `Silent`, `Malformed`; `BadField` for values that the message cannot carry.

        If the caller stops waiting (it is cancelled, or the time is over) and VPP carries the call out nevertheless,
        `late` is called with the reply: so that what was created can be removed.
        """
        call = _Call(message, self._known.service(message).reply, "", late)
        reply, _ = await self._send(call, self._timeout if timeout is None else timeout, fields)
        number = int(reply.get("retval", 0))
        if number < 0 and self._known.error_name(number) not in fine:
            raise Rejected(message, number, self._known.error_name(number))
        return reply

    async def dump(
        self,
        message: str,
        /,
        *,
        timeout: float | None = None,
        **fields: Any,
    ) -> list[Record]:
        """Send a message that is answered with a list, and return the list. Raises as `call` does."""
        service = self._known.service(message)
        limit, found = self._timeout if timeout is None else timeout, list[Record]()
        if not service.reply:
            _, found = await self._send(_Call(message, _PONG, service.details), limit, fields)
            return found
        while True:
            end, part = await self._send(_Call(message, service.reply, service.details), limit, fields)
            found += part
            number = int(end.get("retval", 0))
            if number == _AGAIN:
                fields["cursor"] = end["cursor"]
            elif number < 0:
                raise Rejected(message, number, self._known.error_name(number))
            else:
                return found

    @contextlib.contextmanager
    def events(self, *messages: str) -> Iterator[Events]:
        """Receive events of these names from now on, such as ``sw_interface_event``, for as long as the block runs.

        VPP sends them to connections that requested them, by a call such as ``want_interface_events``; make that call
        inside the block, and no event is missed.
        """
        events = Events()
        for name in messages:
            self._numbered_as(name)
            self._listening.setdefault(name, set()).add(events)
        if self._ended.done():
            events.end(self._ended.result())
        try:
            yield events
        finally:
            for name in messages:
                self._listening[name].discard(events)

    async def _open(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_unix_connection(lambda: self._frames, self._path)
        except FileNotFoundError:
            raise Unreachable(f"there is no API socket of VPP at {self._path}: is VPP running?") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unreachable(f"cannot connect to the API socket of VPP at {self._path}: {reason}") from None
        first = self._frames.first = loop.create_future()
        request = self._known.first("sockclnt_create")
        self._write(request.pack(_CREATE, 0, 0, {"name": name}))
        try:
            data = await first
            if _ID.unpack_from(data)[0] != _CREATED:
                raise Malformed("another message than the reply to the greeting")
            reply = self._known.first("sockclnt_create_reply").unpack(data)
        except (Malformed, Gone, struct.error) as error:
            raise Unreachable(f"what listens at {self._path} does not answer as VPP: {error}") from None
        if reply.response < 0:
            raise Unreachable(f"VPP at {self._path} refused the connection: {reply.response}")
        self._index = reply.index
        self._checksums = _table(reply.message_table)
        for known_message, (checksum, number) in self._checksums.items():
            if (found := self._known.message(known_message, checksum)) is not None:
                self._numbered[number] = found

    async def _introduce(self) -> None:
        """Learn which VPP this is. Not knowing its version is no fault."""
        ping = await self.call(_PING)
        self.process_id = ping.vpe_pid
        if self.has("show_version"):
            self.version = (await self.call("show_version")).version

    def _numbered_as(self, name: str) -> tuple[Message, int]:
        variants = self._known.variants(name)
        if not variants:
            raise UnknownMessage(f"{name} is not among the messages of VPP that we use", message=name)
        has = self._checksums.get(name)
        if has is None:
            raise UnknownMessage(
                f"VPP {self.version} does not have {name}, which VPP {self._known.span(name)} has: "
                "is its plugin loaded, is VPP too old or too new?",
                message=name,
            )
        checksum, number = has
        if number not in self._numbered:
            expected = " or ".join(f"{variant} ({self._known.span(name, variant)})" for variant in variants)
            raise UnknownMessage(
                f"VPP {self.version} has {name} with the checksum {checksum}; expected {expected}", message=name
            )
        return self._numbered[number], number

    async def _send(self, call: _Call, timeout: float, fields: dict[str, Any]) -> tuple[Record, list[Record]]:
        """The last reply to a call, and the details before it."""
        self.require(call.message)
        message, number = self._numbered_as(call.message)
        try:
            async with asyncio.timeout(timeout):
                await self._turns.acquire()
                self._start(call, message, number, fields)
                return await call.answer
        except TimeoutError:
            what = f"VPP {self.version} did not answer {call.message} within {timeout:g} s"
            raise Silent(what, message=call.message) from None

    def _start(self, call: _Call, message: Message, number: int, fields: dict[str, Any]) -> None:
        try:
            if self._ended.done():
                raise _again(self._ended.result(), call.message)
            context = self._new_context()
            data = [message.pack(number, self._index, context, fields)]
            if call.details and call.end == _PONG:
                ping, ping_number = self._numbered_as(_PING)
                data.append(ping.pack(ping_number, self._index, context, {}))
        except BaseException:
            self._turns.release()
            raise
        call.answer.add_done_callback(lambda _: self._abandoned(context))
        self._waiting[context] = call
        self._write(*data)

    def _new_context(self) -> int:
        while True:
            self._context = self._context % 0xFFFFFFFF + 1
            if self._context not in self._waiting:
                return self._context

    def _write(self, *messages: bytes) -> None:
        """Send messages, together with those of other calls that begin in this turn of the loop."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += [part for data in messages for part in (_FRAME.pack(0, len(data), 0), data)]

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.writelines(unsent)

    def _abandoned(self, context: int) -> None:
        """Nobody waits for the reply any more. It may still arrive, so the call remains in flight for a while."""
        if context in self._waiting:
            asyncio.get_running_loop().call_later(_FORGOTTEN_AFTER, self._forget, context)

    def _forget(self, context: int) -> None:
        if self._waiting.pop(context, None) is not None:
            self._turns.release()

    def _received(self, data: bytes) -> None:
        try:
            self._read(data)
        except Malformed as error:
            self._end(Malformed(f"VPP {self.version} sent what cannot be read: {error.detail}"))

    def _read(self, data: bytes) -> None:
        message = self._numbered.get(_ID.unpack_from(data)[0])
        if message is None:
            return  # Nothing that we use; our calls are answered with messages that were checked before.
        if message.context_at is None:
            record = message.unpack(data)
            for events in tuple(self._listening.get(message.name, ())):
                events.put(message.name, record)
            return
        if len(data) < message.context_at + _CONTEXT.size:
            raise Malformed(f"{message.name} of {len(data)} bytes")
        (context,) = _CONTEXT.unpack_from(data, message.context_at)
        call = self._waiting.get(context)
        if call is None:
            return
        if message.name == call.details and call.details:
            call.found.append(message.unpack(data))
        elif message.name == call.end:
            record = message.unpack(data)
            self._forget(context)
            call.finish(record)
        else:
            raise Malformed(f"{message.name} in answer to {call.message}")

    def _lost(self, error: VPPError) -> None:
        if not self._checksums:
            self._end(error)
        elif isinstance(error, Gone):
            self._end(Gone(f"VPP {self.version} closed the connection: it ended or was restarted"))
        else:
            self._end(Malformed(f"VPP {self.version} sent what cannot be read: {error.detail}"))

    def _end(self, error: VPPError) -> None:
        if self._ended.done():
            return
        self._ended.set_result(error)
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            self._turns.release()
            if not call.answer.done():
                call.answer.set_exception(_again(error, call.message))
        for events in {one for found in self._listening.values() for one in found}:
            events.end(error)


class Events:
    """Events in the order in which VPP sent them: ``async for name, event in events``.

    Ends with the connection's error when that ends. A reader that lets 4096 events wait gets `Malformed`, since events
    are lost then: it has to request the present state.
    """

    def __init__(self) -> None:
        self._found: deque[tuple[str, Record]] = deque()
        self._error: VPPError | None = None
        self._news = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[tuple[str, Record]]:
        """Itself."""
        return self

    async def __anext__(self) -> tuple[str, Record]:
        """The next event."""
        while not self._found:
            if self._error is not None:
                raise _again(self._error, "")
            self._news.clear()
            await self._news.wait()
        return self._found.popleft()

    def put(self, name: str, event: Record) -> None:
        """Add an event; for the connection."""
        if len(self._found) >= _EVENTS:
            self._found.clear()
            self.end(Malformed(f"more than {_EVENTS} events of VPP were not read in time"))
        elif self._error is None:
            self._found.append((name, event))
            self._news.set()

    def end(self, error: VPPError) -> None:
        """No event follows; for the connection."""
        self._error = self._error or error
        self._news.set()


class _Call:
    """A call in flight: the names of the message, of its last reply and of the details before that."""

    def __init__(self, message: str, end: str, details: str, late: Callable[[Record], None] | None = None) -> None:
        self.message, self.end, self.details = message, end, details
        self.found: list[Record] = []
        self.answer: asyncio.Future[tuple[Record, list[Record]]] = asyncio.get_running_loop().create_future()
        self._late = late

    def finish(self, reply: Record) -> None:
        if not self.answer.done():
            self.answer.set_result((reply, self.found))
        elif self._late is not None and reply.get("retval", 0) >= 0:
            self._late(reply)


class _Frames(asyncio.Protocol):
    """Cuts what arrives at the socket into messages. The first one goes to whoever greeted."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[VPPError], None]) -> None:
        self.first: asyncio.Future[bytes] | None = None
        self._received, self._lost = received, lost
        self._rest = bytearray()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        start = 0
        while len(self._rest) - start >= _FRAME.size:
            size = _FRAME.unpack_from(self._rest, start)[1]
            if not _ID.size <= size <= _LARGEST:
                self._fail(Malformed(f"a message of {size} bytes"))
                return
            end = start + _FRAME.size + size
            if len(self._rest) < end:
                break
            self._give(bytes(self._rest[start + _FRAME.size : end]))
            start = end
        del self._rest[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Gone("it closed the connection"))

    def _give(self, message: bytes) -> None:
        if self.first is not None:
            first, self.first = self.first, None
            if not first.done():
                first.set_result(message)
        else:
            self._received(message)

    def _fail(self, error: VPPError) -> None:
        self._rest.clear()
        if self.first is not None and not self.first.done():
            self.first.set_exception(error)
            self.first = None
        self._lost(error)


def _table(entries: list[Record]) -> dict[str, tuple[str, int]]:
    """The checksum and the number of each message by its name; VPP writes ``name_checksum``."""
    found = {}
    for entry in entries:
        name, _, checksum = entry.name.rpartition("_")
        found[name] = (f"0x{checksum}", entry.index)
    return found


def _again(error: VPPError, message: str) -> VPPError:
    """The same error for another caller: an exception that is raised twice collects tracebacks."""
    fresh = type(error).__new__(type(error))
    VPPError.__init__(fresh, error.detail, message=message)
    return fresh
