"""TCP connections between components, in a network namespace of their own: its loopback interface can be set down."""

import asyncio
import os
import socket
import subprocess
from contextlib import AsyncExitStack

import pytest

from nsm.apis.health import HealthCheckRequest
from nsm.chains.core import Unavailable
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, Streaming, check_health, keepalive, serve
from nsm.mesh import namespaces

AUTHORITY = Authority.create("test.mesh")
TELLS, MESSAGES, SIZE = "/test.Tells/Tell", 64, 64 * 1024
SOON = 10.0


@pytest.fixture
def network(monkeypatch):
    """This thread's network namespace during a test, in which peers count as gone after a moment."""
    for name, seconds in {"GONE_AFTER": 1.2, "CHECK": 0.05, "_SLACK": 0.05, "_IDLE": 1, "_INTERVAL": 1}.items():
        monkeypatch.setattr(keepalive, name, seconds)
    former, own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), namespaces.new_network()
    namespaces.enter(own, namespaces.NEW_NET)
    yield
    namespaces.enter(former, namespaces.NEW_NET)
    os.close(former)
    os.close(own)


async def tell(_request, _incoming):
    """More than the buffers of the kernel hold."""
    for _ in range(MESSAGES):
        yield [HealthCheckRequest(service=SIZE * "x")]


def serving():
    methods = {**Health().methods(), TELLS: Streaming(HealthCheckRequest, tell)}
    return serve(["tcp://127.0.0.1:0"], methods, identity_of(AUTHORITY, "server"), name="server")


def transport_of(pool, url):
    return pool.channel(url)._protocol.connection._transport


def server_side(url):
    """The socket of the one connection of the server at `url`."""
    port = int(url.rpartition(":")[2])
    (sock,) = [each for each in keepalive.keepalive()._connections.values() if each.getsockname()[1] == port]
    return sock


def silence(sock):
    """Seconds since something came from the peer."""
    info = keepalive._INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, keepalive._INFO.size))
    return min(info[2:4]) / 1000


async def until(condition):
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_peer_that_does_not_read_keeps_its_connection(network):
    """A hundred watchers in one busy process lost theirs: TCP took a closed window for a peer that was gone."""
    async with serving() as (url,), Pool(identity_of(AUTHORITY, "client")) as pool:
        assert await check_health(pool, url)
        reader, writer = transport_of(pool, url), server_side(url)
        reader.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        reader.pause_reading()
        messages = pool.channel(url).stream(TELLS, HealthCheckRequest(), HealthCheckRequest)
        first = asyncio.create_task(anext(messages))
        await until(lambda: silence(writer) > keepalive.GONE_AFTER + 3 * keepalive.CHECK)  # between two probes
        reader.resume_reading()
        seen = len(await first)
        async for batch in messages:
            seen += len(batch)
        assert seen == MESSAGES


async def test_a_peer_behind_a_broken_network_is_gone(network):
    """Both an idle peer and one that is being sent to: neither waits for the minute that the kernel would."""
    names = ("idle", "busy")
    async with AsyncExitStack() as stack:
        (url,) = await stack.enter_async_context(serving())
        idle, busy = [await stack.enter_async_context(Pool(identity_of(AUTHORITY, name))) for name in names]
        for pool in (idle, busy):
            assert await check_health(pool, url)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        with pytest.raises(Unavailable):
            await check_health(busy, url, timeout=SOON)
        await until(lambda: not keepalive.keepalive()._connections)
        assert idle.channel(url)._protocol is None
