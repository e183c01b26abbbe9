"""Who comes to a component's door is let in, however many come at once; who stops in the middle holds nobody up."""

import asyncio
import socket
from contextlib import ExitStack

import pytest

from nsm.chains.core import Limits
from nsm.chains.transport import door as doors
from nsm.chains.transport.channel import _connect
from nsm.chains.transport.folded import Folded
from nsm.chains.transport.urls import Address

HELLO = b"\x16\x03\x01\x00\x00"
HERE = Address(path="/here")
AT_ONCE = 8
STILL = 0.1


class Handshakes:
    """Those at a door of `AT_ONCE` handshakes, half of them from one process: each ends as `end` has it."""

    def __init__(self, end):
        self._end = end
        self.begun = self.done = self.ended = 0
        self.door = doors.Door(self._shake_hands, b"\x16", Limits(handshakes=AT_ONCE), Folded(), "door")

    async def _shake_hands(self, sock, _address):
        self.begun += 1
        try:
            await self._end(sock)
            self.done += 1
        except asyncio.CancelledError:
            self.ended += 1
            raise
        finally:
            sock.close()
        return True

    def come(self, stack, count):
        """So many clients, who have said hello."""
        for _ in range(count):
            client, server = socket.socketpair()
            stack.enter_context(client).send(HELLO)
            server.setblocking(False)
            self.door.arrived(server, HERE)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(doors, "_STANDS_STILL", STILL)


async def test_many_who_come_at_once_are_all_let_in_though_each_takes_long():
    """A handshake may take longer than the door stands still, as long as others end: nobody is slow on purpose."""
    one_by_one = asyncio.Lock()

    async def end(_sock):
        async with one_by_one:
            await asyncio.sleep(STILL / 3)

    with ExitStack() as stack:
        handshakes = Handshakes(end)
        handshakes.come(stack, 40)
        await handshakes.until(lambda: not len(handshakes.door))
        assert (handshakes.done, handshakes.ended) == (40, 0)
        await handshakes.door.aclose()


async def test_who_stops_in_the_middle_gives_way_to_as_many_as_wait():
    async def never(sock):
        sock.recv(len(HELLO))
        await asyncio.Event().wait()

    with ExitStack() as stack:
        handshakes = Handshakes(never)
        handshakes.come(stack, AT_ONCE // 2)
        await handshakes.until(lambda: handshakes.begun == AT_ONCE // 2)
        await asyncio.sleep(2 * STILL)
        assert not handshakes.ended  # nobody waits
        handshakes.come(stack, 1)
        await handshakes.until(lambda: handshakes.begun == AT_ONCE // 2 + 1)
        assert handshakes.ended == 1
        await handshakes.door.aclose()


async def test_a_client_who_waits_for_us_does_not_give_way():
    """It has said its part, and we are late."""

    async def never_read(_sock):
        await asyncio.Event().wait()

    with ExitStack() as stack:
        handshakes = Handshakes(never_read)
        handshakes.come(stack, AT_ONCE // 2 + 1)
        await handshakes.until(lambda: handshakes.begun)
        await asyncio.sleep(3 * STILL)
        assert not handshakes.ended
        await handshakes.door.aclose()


async def test_a_client_waits_where_more_than_the_kernel_keeps_wait_to_be_accepted(tmp_path):
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(f"{tmp_path}/s")
        listening.listen(0)
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for client in clients:
            client.setblocking(False)
        connecting = [asyncio.create_task(_connect(client, f"{tmp_path}/s")) for client in clients]
        await asyncio.sleep(0.05)
        assert not all(task.done() for task in connecting)
        for _ in clients:
            stack.enter_context((await asyncio.to_thread(listening.accept))[0])
        await asyncio.wait_for(asyncio.gather(*connecting), 5)
        assert all(client.getpeername() for client in clients)
