"""Answers that their callers did not get: what they tell of is taken back."""

import asyncio
import contextlib

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain
from nsm.chains.identity import Authority
from nsm.chains.testing import Delay
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, SocketAccess, network_service, serve
from nsm.chains.transport.frames import frame
from nsm.chains.transport.rpc import REQUEST
from nsm.chains.transport.server import Server
from nsm.chains.transport.urls import Address

AUTHORITY = Authority.create("test.mesh")


@contextlib.asynccontextmanager
async def serving(tmp_path, *elements, url="", **options):
    """A server that holds connections; gives them, and where it listens."""
    begin = Begin()
    methods = network_service(Chain([begin, *elements]))
    identity = identity_of(AUTHORITY, "server")
    async with serve([url or f"unix://{tmp_path}/s.sock"], methods, identity, name="server", **options) as urls:
        yield begin, urls[0]


def client():
    return Pool(identity_of(AUTHORITY, "client"), dial_timeout=2)


def call(url, name="c"):
    return Call(NetworkServiceRequest(connection=Connection(id=name)), target=url)


async def request(pool, url, name="c"):
    await Chain([Begin()], RemoteNetworkService(pool)).request(call(url, name))


async def unread(pool, url, begin):
    """A request whose answer is not read: its task."""
    await pool.channel(url).peer()
    pool.channel(url)._protocol.connection._transport.pause_reading()
    asking = asyncio.ensure_future(request(pool, url))
    await holds(begin, 1)
    await asyncio.sleep(0.02)
    assert len(begin) == 1
    return asking


def break_off(pool):
    """As a process that is killed leaves its connections: without a word."""
    for channel in pool._channels.values():
        channel._protocol.connection._transport.abort()


async def holds(begin, count):
    """Wait until that many connections are there."""
    async with asyncio.timeout(3):
        while len(begin) != count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("url", ["", "tcp://127.0.0.1:0"], ids=["unix", "tcp"])
async def test_a_client_that_is_killed_right_when_it_is_answered_leaves_nothing(tmp_path, url):
    async with serving(tmp_path, url=url) as (begin, url), client() as pool:
        asking = await unread(pool, url, begin)
        break_off(pool)
        await holds(begin, 0)
        asking.cancel()


async def test_a_client_that_is_killed_while_its_request_runs_leaves_nothing(tmp_path):
    delay = Delay()
    delay.gate.clear()
    async with serving(tmp_path, delay) as (begin, url), client() as pool:
        asking = asyncio.ensure_future(request(pool, url))
        await holds(begin, 1)
        break_off(pool)
        delay.gate.set()
        await holds(begin, 0)
        asking.cancel()


@pytest.mark.parametrize("url", ["", "tcp://127.0.0.1:0"], ids=["unix", "tcp"])
async def test_one_that_asks_once_and_ends_keeps_its_wire(tmp_path, url):
    """As nsc-init does."""
    async with serving(tmp_path, url=url) as (begin, url):
        async with client() as pool:
            await request(pool, url)
        await asyncio.sleep(0.1)
        assert len(begin) == 1


async def test_a_channel_that_the_server_itself_ends_takes_nothing_back(tmp_path):
    """Because an SVID has expired, say: the caller will read its answer, or ask again."""
    begin = Begin()
    server = Server(network_service(Chain([begin])), identity_of(AUTHORITY, "server"), "server")
    url = await server.listen(Address(path=f"{tmp_path}/s.sock"), SocketAccess())
    async with client() as pool:
        asking = await unread(pool, url, begin)
        for connection in [*server.connections]:
            connection.abort("its SVID has expired")
        await asyncio.sleep(0.1)
        assert len(begin) == 1
        break_off(pool)
        await asyncio.wait([asking])
    await server.stop(0)


async def test_one_that_goes_on_has_read_its_answers(tmp_path):
    async with serving(tmp_path) as (begin, url), client() as pool:
        await request(pool, url, "a")
        await request(pool, url, "b")
        break_off(pool)
        await holds(begin, 1)
        assert "a" in begin


async def test_who_comes_for_many_has_told_them(tmp_path):
    async with serving(tmp_path, is_intermediary=lambda _: True) as (begin, url), client() as pool:
        await request(pool, url)
        break_off(pool)
        await asyncio.sleep(0.1)
        assert len(begin) == 1


async def test_an_answer_to_a_stream_that_was_reset_is_taken_back():
    """The caller takes no data, so that the answer waits for it; then it gives up."""
    async with serving("", url="tcp://127.0.0.1:0") as (begin, url):
        context = identity_of(AUTHORITY, "rogue").client_context()
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=context)
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        path = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", REQUEST)]
        h2.send_headers(1, [*path, ("content-type", "application/grpc")])
        message = NetworkServiceRequest(connection=Connection(id="c"))
        h2.send_data(1, frame(message), end_stream=True)
        writer.write(h2.data_to_send())
        await holds(begin, 1)
        await asyncio.sleep(0.05)
        assert len(begin) == 1
        h2.reset_stream(1, ErrorCodes.CANCEL)
        writer.write(h2.data_to_send())
        await holds(begin, 0)
        writer.transport.abort()
