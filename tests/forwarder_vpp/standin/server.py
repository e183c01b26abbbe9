"""The API socket of a stand-in."""

import asyncio
import contextlib
import itertools
import os
import struct
from collections import Counter

from nsm.forwarder_vpp.api import Record, known
from nsm.forwarder_vpp.api.errors import BadField, Malformed

from . import acl, devices, general, ikev2, interfaces, layer2, layer3, tunnels  # noqa: F401 - they add their handlers
from .faults import Fault, Plan
from .handlers import HANDLERS
from .segment import Segment
from .world import NONE, Refusal, World

_FRAME = struct.Struct(">QII")
_CREATE, _CREATED = 15, 16
_FIRST = 100
"""The number of the first message in the table; VPP's own begin with 1."""
_WANTS = {
    "want_interface_events": "sw_interface_event",
    "want_wireguard_peer_events": "wireguard_peer_event",
    "want_ip_neighbor_events_v2": "ip_neighbor_event_v2",
    "want_ping_finished_events": "ping_finished_event",
}


@contextlib.asynccontextmanager
async def standing_in(folder, **more):
    """A stand-in in this process, with its sockets in a folder."""
    vpp = StandIn(folder, **more)
    async with vpp.serving():
        yield vpp


class StandIn:
    """One run of the stand-in; `world` is what it keeps, `api` and `stats` are the paths of its sockets."""

    def __init__(self, folder, *, version="26.06", without=(), changed=(), api="", stats="", die=None, **world):
        self.api, self.stats = api or f"{folder}/api.sock", stats or f"{folder}/stats.sock"
        self.world = World(version, **world)
        self.segment = Segment()
        self.seen = []
        """The names and fields of all messages so far."""
        self.faults = self.world.faults
        self._die = die or self.stop
        self._version, self._without, self._changed = version, set(without), set(changed)
        self._numbers = {}
        self._connections, self._indices = {}, itertools.count(1)
        self._plans, self._is_hung, self._server = [], False, None
        self.world.changed = self._interfaces_changed
        descriptions = known()
        number = itertools.count(_FIRST)
        self._table = []
        for name in descriptions:
            checksum = next(
                (one for one in descriptions.variants(name) if version in descriptions.versions_of(name, one)), None
            )
            if checksum is None or name in self._without:
                continue
            index = {"sockclnt_create": _CREATE, "sockclnt_create_reply": _CREATED}.get(name) or next(number)
            shown = "0xdeadbeef" if name in self._changed else checksum
            self._table.append({"index": index, "name": f"{name}_{shown[2:]}"})
            self._numbers[index] = descriptions.message(name, checksum)
        self._index_of = {message.name: index for index, message in self._numbers.items()}
        self._descriptions = descriptions

    @contextlib.asynccontextmanager
    async def serving(self):
        """Answer at the sockets for as long as the block runs."""
        for path in (self.api, self.stats):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        async with self.segment.serving(self.stats):
            self._server = await asyncio.start_unix_server(self._connected, self.api)
            try:
                yield self
            finally:
                await self.stop()
                self.segment.close()

    async def stop(self):
        """End, as if killed."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections.values()):
                writer.transport.abort()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.api)
            self._server = None

    def plan(self, fault, name="", count=1, number=-1):
        """Do something wrong at the `count`-th message of a name, or of any, from now on."""
        self._plans.append(Plan(Fault(fault), name, count, number))

    def refuse(self, name, number, count=1):
        """Answer the `count`-th message of this name with an error."""
        self.plan(Fault.REFUSE, name, count, number)

    def resume(self):
        """Answer again after a hang."""
        self._is_hung = False

    def count(self):
        """How many messages there were of each name."""
        return Counter(name for name, _ in self.seen)

    def tell(self):
        """Send the events that the world has for those who want them."""
        for name, fields in self.world.take_events():
            if name not in self._index_of:
                continue
            message = self._numbers[self._index_of[name]]
            for index, writer in self._connections.items():
                if name in writer.wants and fields.get("peer_index") in {None, *writer.peers}:
                    said = {"pid": writer.wants[name], **fields} if "pid" in message.fields else fields
                    _send(writer, message.pack(self._index_of[name], index, 0, said))

    def _interfaces_changed(self):
        for index in list(self.segment.counted):
            if index not in self.world.interfaces:
                del self.segment.counted[index]
        for index in self.world.interfaces:
            self.segment.counted.setdefault(index, (0,) * 5)
        self.segment.write()

    async def _connected(self, reader, writer):
        index = next(self._indices)
        writer.wants, writer.peers = {}, set()
        self._connections[index] = writer
        try:
            while True:
                _, size, _ = _FRAME.unpack(await reader.readexactly(_FRAME.size))
                data = await reader.readexactly(size)
                if not self._is_hung:
                    await self._answer(index, writer, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.pop(index, None)
            writer.close()

    async def _answer(self, index, writer, data):
        number = struct.unpack_from(">H", data)[0]
        message = self._numbers.get(number)
        try:
            said = message.unpack(data)
            context = struct.unpack_from(">I", data, message.context_at)[0]
        except (Malformed, AttributeError, struct.error, TypeError) as error:
            self.faults.append(f"message {number} of {len(data)} bytes cannot be read: {error}")
            return
        if message.name == "sockclnt_create":
            reply = {"response": 0, "index": index, "message_table": self._table}
            _send(writer, self._numbers[_CREATED].pack(_CREATED, index, context, reply))
            return
        self.seen.append((message.name, said))
        fault = self._fault(message.name)
        if fault is not None and fault.fault in {Fault.HANG, Fault.DIE_BEFORE}:
            await self._fail(fault.fault)
            return
        replies = self._replies(message.name, said, writer, fault)
        if fault is not None and fault.fault is Fault.DIE_AFTER:
            await self._fail(fault.fault)
        elif fault is not None and fault.fault is Fault.GARBAGE:
            _send(writer, struct.pack(">HI", self._index_of[replies[-1][0]], context) + b"\xff" * 3)
        elif fault is None or fault.fault is not Fault.IGNORE:
            for name, fields in replies:
                reply = self._numbers[self._index_of[name]]
                try:
                    _send(writer, reply.pack(self._index_of[name], index, context, fields))
                except BadField as error:
                    raise AssertionError(f"the stand-in answered {message.name} with {fields}") from error
        self.tell()

    def _want_peers(self, writer, said):
        """As VPP does, send events of those peers only that are there when the events are requested."""
        for index, peer in self.world.peers.items():
            interface = self.world.interfaces[peer["sw_if_index"]]
            if said.sw_if_index in {NONE, interface.index} and said.peer_index in {NONE, index}:
                writer.peers.add(index)
                if self.world.autolink and interface.admin and not peer["flags"]:
                    self.world.establish(index)

    def _fault(self, name):
        for plan in self._plans:
            if plan.meets(name):
                self._plans.remove(plan)
                return plan
        return None

    async def _fail(self, fault):
        if fault is Fault.HANG:
            self._is_hung = True
        else:
            await self._die()

    def _replies(self, name, said, writer, fault):
        """The names and fields of what is answered."""
        service = self._descriptions.service(name)
        refused = {"retval": fault.number} if fault is not None and fault.fault is Fault.REFUSE else None
        if name == "sockclnt_delete":
            return [(service.reply, {"response": 1})]
        if name in _WANTS and refused is None:
            wanted = said.get("enable_disable", said.get("enable", True))
            if name == "want_interface_events" and bool(wanted) == (_WANTS[name] in writer.wants):
                refused = {"retval": self._descriptions.error_number("INVALID_REGISTRATION")}
            elif wanted:
                writer.wants[_WANTS[name]] = said.get("pid", 0)
                if name == "want_wireguard_peer_events":
                    self._want_peers(writer, said)
            else:
                writer.wants.pop(_WANTS[name], None)
        handler = HANDLERS.get(name, (lambda world, m: {}) if name in _WANTS else None)
        if handler is None:
            self.faults.append(f"the stand-in does not know {name}")
            return [(service.reply or service.details, {"retval": -9})] if service.reply else []
        try:
            answer = refused if refused is not None else handler(self.world, Record(said))
        except Refusal as refusal:
            answer = {**refusal.fields, "retval": self._descriptions.error_number(refusal.name)}
        if not service.details:
            return [(service.reply, answer)]
        details = answer if isinstance(answer, list) else []
        end = [(service.reply, {} if isinstance(answer, list) else answer)] if service.reply else []
        return [*((service.details, one) for one in details), *end]


def _send(writer, data):
    writer.write(_FRAME.pack(0, len(data), 0) + data)
