"""A connection that is over is freed at once, on both sides: it stays in no reference cycle, however it ended."""

import asyncio
import datetime
import gc
import socket
from contextlib import AsyncExitStack, suppress

import pytest

from nsm.apis.health import HealthCheckRequest, HealthCheckResponse
from nsm.chains.core import Limits, MeshError, Refused, Unavailable
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import (
    Health,
    Pool,
    SocketAccess,
    Streaming,
    Unary,
    check_health,
    parse_address,
    serve,
    serve_plain,
)

AUTHORITY, STRANGE = Authority.create("test.mesh"), Authority.create("strange.mesh")
OF_CONNECTIONS = (
    "nsm.chains.transport",
    "asyncio.selector_events",
    "asyncio.sslproto",
    "ssl",
    "socket",
    "grpclib",
    "h2",
)
OF_SERVERS = {"SSLContext", "Server", "Door", "Folded", "Health", "Silence", "Unary", "Streaming", "Turns"}
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
OPEN, MOST = "ssl.SSLObject", 4
HANGS, TELLS = "/test.Hangs/Hang", "/test.Tells/Tell"


def of_connections():
    """What there is of connections, by class, beside what `nothing_stays_of` found and froze."""
    kinds = [type(each) for each in gc.get_objects()]
    found = [kind for kind in kinds if kind.__module__.startswith(OF_CONNECTIONS) and kind.__name__ not in OF_SERVERS]
    return sorted(f"{kind.__module__}.{kind.__name__}" for kind in found)


async def nothing_stays_of(what):
    """Without a collector of cycles, what the coroutine `what` makes of connections is gone after it."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        await what
        await until(lambda: not of_connections())
    finally:
        gc.enable()
        gc.unfreeze()


async def until(condition, seconds=3.0):
    """Wait for what the other side does when it gets to it."""
    last = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < last, of_connections()
        await asyncio.sleep(0.02)


class Calls:
    """Methods that do not answer, and those that run."""

    def __init__(self):
        self.running = 0

    def methods(self):
        hangs, tells = Unary(HealthCheckRequest, self.hang), Streaming(HealthCheckRequest, self.tell)
        return {**Health().methods(), HANGS: hangs, TELLS: tells}

    async def hang(self, _message, _incoming):
        async for _ in self.tell(_message, _incoming):
            pass

    async def tell(self, _message, _incoming):
        self.running += 1
        try:
            yield [HealthCheckResponse()]
            await asyncio.Event().wait()
        finally:
            self.running -= 1


class Both:
    """A server that is there throughout, and what a test does to connections with it."""

    def __init__(self, url, calls, server):
        self.url, self.calls, self.is_unix = url, calls, url.startswith("unix")
        self.nowhere = f"{url}-nobody" if self.is_unix else "tcp://127.0.0.1:1"
        self.server, self.client = server, identity_of(AUTHORITY, "client")

    def pool(self, identity=None):
        return Pool(identity or self.client, dial_timeout=2)

    async def call(self, pool, method, url=""):
        """Make a call that gets no answer."""
        channel = pool.channel(url or self.url)
        with suppress(MeshError):
            if method == HANGS:
                await channel.unary(method, HealthCheckRequest(), HealthCheckResponse)
            async for _ in channel.stream(method, HealthCheckRequest(), HealthCheckResponse):
                pass

    async def begin(self, pool):
        """Both such calls, when the server is at them."""
        before = self.calls.running
        calls = [asyncio.create_task(self.call(pool, method)) for method in (HANGS, TELLS)]
        await until(lambda: self.calls.running == before + 2)
        return calls

    async def say(self, words):
        """Connect, say them, and see the server hang up."""
        await asyncio.to_thread(say, self.url, words)


def say(url, words):
    """In a thread of its own; returns when the other side hangs up."""
    place = parse_address(url)
    sock = socket.socket(socket.AF_UNIX if place.is_unix else socket.AF_INET)
    with sock, suppress(OSError):  # reset
        sock.settimeout(5)
        sock.connect(place.path if place.is_unix else (place.host, place.port))
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(100):
            pass


@pytest.fixture(params=["unix", "tcp"])
async def both(request, tmp_path):
    calls, server = Calls(), identity_of(AUTHORITY, "server")
    url = f"unix://{tmp_path}/s.sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    async with serve([url], calls.methods(), server, name="server", limits=Limits(connections=MOST)) as urls:
        own = Both(urls[0], calls, server)
        await a_channel_that_was_used_and_closed(own)  # what is made once and kept
        await asyncio.sleep(0)
        yield own


def renew(identity):
    identity.update(AUTHORITY.issue(identity.spiffe_id, lifetime=datetime.timedelta(hours=2)), identity.bundles)


async def a_channel_that_was_used_and_closed(both):
    async with both.pool() as pool:
        assert await check_health(pool, both.url)


async def connections_that_rotations_of_either_side_replaced(both):
    async with both.pool() as pool:
        for identity in (both.client, both.server, both.client):
            assert await check_health(pool, both.url)
            renew(identity)
        assert await check_health(pool, both.url)
        pool.forget(both.url)
        pool.identity = None
        await until(lambda: OPEN not in of_connections())


async def a_connection_that_breaks_while_calls_run(both):
    async with both.pool() as pool:
        calls = await both.begin(pool)
        pool.channel(both.url)._protocol.abort("it is cut")
        await asyncio.gather(*calls)
        await until(lambda: OPEN not in of_connections())


async def calls_that_are_cancelled(both):
    async with both.pool() as pool:
        calls = await both.begin(pool)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not both.calls.running)


async def a_call_whose_answer_is_an_error(both):
    async with both.pool() as pool:
        with pytest.raises(MeshError, match="no method"):
            await pool.channel(both.url).unary("/no/Method", HealthCheckRequest(), HealthCheckResponse)


async def a_server_that_the_client_does_not_believe(both):
    bundles = {"test.mesh": [STRANGE.certificate], "strange.mesh": [AUTHORITY.certificate]}
    both.client.update(both.client.svid, bundles)  # so that TLS has no objection
    async with both.pool() as pool:
        with pytest.raises(Refused, match="not issued by its own trust domain"):
            await pool.channel(both.url).peer()


async def a_client_that_the_server_does_not_believe(both):
    bundles = {"test.mesh": [STRANGE.certificate], "strange.mesh": [AUTHORITY.certificate]}
    both.server.update(both.server.svid, bundles)
    async with both.pool() as pool:
        with pytest.raises(Unavailable):
            await pool.channel(both.url).unary(HANGS, HealthCheckRequest(), HealthCheckResponse)


async def a_client_that_the_server_does_not_know(both):
    stranger = identity_of(STRANGE, "stranger")
    stranger.update(stranger.svid, {"test.mesh": [AUTHORITY.certificate]})
    async with both.pool(stranger) as pool:
        with pytest.raises(Unavailable):
            await pool.channel(both.url).unary(HANGS, HealthCheckRequest(), HealthCheckResponse)


async def a_client_that_does_not_know_the_server(both):
    async with both.pool(identity_of(STRANGE, "stranger")) as pool:
        with pytest.raises(Unavailable, match="cannot reach"):
            await pool.channel(both.url).peer()


async def one_connection_too_many(both):
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            assert await check_health(await stack.enter_async_context(both.pool()), both.url)
        async with both.pool() as another:
            with pytest.raises(Unavailable):
                await another.channel(both.url).unary(HANGS, HealthCheckRequest(), HealthCheckResponse)


async def a_client_that_only_looks(both):
    await both.say(b"")


async def a_client_that_speaks_something_else(both):
    await both.say(b"GET / HTTP/1.1\r\n")


async def a_client_whose_handshake_is_broken(both):
    await both.say(b"\x16\x03\x01\x00\x05hello")


async def a_target_where_nobody_is(both):
    async with both.pool() as pool:
        with pytest.raises(Unavailable, match="cannot reach"):
            await pool.channel(both.nowhere).peer()


async def a_server_that_stops_while_calls_run(both):
    url = f"{both.url}-2" if both.is_unix else "tcp://127.0.0.1:0"
    async with both.pool() as pool:
        async with serve([url], both.calls.methods(), both.server, name="another") as urls:
            call = asyncio.create_task(both.call(pool, TELLS, urls[0]))
            await until(lambda: both.calls.running)
        await call


@pytest.mark.parametrize(
    "what",
    [
        a_channel_that_was_used_and_closed,
        connections_that_rotations_of_either_side_replaced,
        a_connection_that_breaks_while_calls_run,
        calls_that_are_cancelled,
        a_call_whose_answer_is_an_error,
        a_server_that_the_client_does_not_believe,
        a_client_that_the_server_does_not_believe,
        a_client_that_the_server_does_not_know,
        a_client_that_does_not_know_the_server,
        one_connection_too_many,
        a_client_that_only_looks,
        a_client_that_speaks_something_else,
        a_client_whose_handshake_is_broken,
        a_target_where_nobody_is,
        a_server_that_stops_while_calls_run,
    ],
    ids=lambda what: what.__name__,
)
async def test_nothing_of_a_connection_stays_in_memory_after(both, what):
    await nothing_stays_of(what(both))


async def test_nothing_of_a_connection_without_tls_stays_in_memory(tmp_path):
    path = f"{tmp_path}/plain"
    async with serve_plain(path, Health().methods(), name="plain", access=SocketAccess()):
        await asyncio.to_thread(say, f"unix://{path}", HTTP2)  # what is made once and kept
        await nothing_stays_of(asyncio.to_thread(say, f"unix://{path}", HTTP2))
