"""Identities rotate while calls run: nobody may notice."""

import asyncio
import datetime
import os
import ssl
from contextlib import AsyncExitStack, suppress

import pytest

from nsm.apis.connection import Connection
from nsm.apis.health import HealthCheckRequest, HealthCheckResponse
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.composed import client, endpoint
from nsm.chains.core import Call, Element, MeshError
from nsm.chains.identity import Authority
from nsm.chains.identity.source import identity_from
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteMonitor, RemoteNetworkService, SocketAccess, Streaming, serve, serve_plain
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.entries import Entries
from nsm.services.identity.issuer import Issuer

AUTHORITY = Authority.create("test.mesh")
GOAWAY = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff"
"""Finish what has begun, and begin nothing more."""


def rotate(identity, lifetime=3600):
    lifetime = datetime.timedelta(seconds=lifetime)
    identity.update(AUTHORITY.issue(identity.spiffe_id, lifetime=lifetime), identity.bundles)


def ask(connection_id):
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, network_service="any")))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class Takes(Element):
    """Answers after a while."""

    def __init__(self, seconds):
        self.seconds, self.running = seconds, 0

    async def request(self, call, rest):
        self.running += 1
        await asyncio.sleep(self.seconds)
        return await rest.request(call)


async def calls_until(done, chain, clients=8):
    """Refresh and close connections of `clients` until `done`; the errors that were met, and how many calls."""
    errors, calls = [], 0

    async def work(number):
        nonlocal calls
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                await chain.request(ask(f"{number}"))
                if turn % 5 == 0:
                    await chain.close(ask(f"{number}"))
            except MeshError as error:
                errors.append(str(error))
            calls += 1

    await asyncio.gather(*map(work, range(clients)))
    return errors, calls


async def until(condition, seconds=20.0):
    """Wait for what comes as soon as the machine gets to it."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("who", [["server"], ["client"], ["server", "client"]])
async def test_no_call_fails_when_an_identity_rotates_under_load(tmp_path, who):
    """Each side goes on signing with the key that the other has seen, and then goes over to a new connection."""
    identities = {name: identity_of(AUTHORITY, name) for name in ("server", "client")}
    takes = Takes(0.01)
    served = endpoint("nse", identities["server"], [takes])
    async with (
        served,
        serve([f"unix://{tmp_path}/s"], served.methods(), identities["server"], name="nse") as urls,
        Pool(identities["client"]) as pool,
    ):
        chain, done = client("client", [], RemoteNetworkService(pool), url=urls[0]), asyncio.Event()
        load = asyncio.create_task(calls_until(done, chain))

        async def key():
            return (await pool.channel(urls[0]).peer()).certificate_der

        async def calls_went_on():
            return takes.running >= enough

        async def has_gone_over():
            return "server" not in who or await key() not in keys

        async def old_connections_are_gone():
            return descriptors() <= before + 1

        enough = 8
        await until(calls_went_on)
        before, keys = descriptors(), {await key()}
        for _ in range(10):
            for name in who:
                rotate(identities[name])
            enough = takes.running + 16
            await until(calls_went_on)
            await until(has_gone_over)
            keys.add(await key())
        done.set()
        errors, _ = await load
        assert errors == []
        assert len(keys) == (11 if "server" in who else 1)
        await until(old_connections_are_gone)
        await chain.aclose()


async def test_an_identity_of_four_seconds_serves_for_many_of_its_lives(tmp_path):
    """From a real issuer, which rotates at half of the life; no call may fail, also of who was idle for long."""
    entries = Entries.parse([f"socket:{tmp_path}/{name}.id=spiffe://test.mesh/{name}" for name in ("nse", "client")])
    issuer = Issuer(Authorities([AUTHORITY]), entries.identify, lifetime=4.0, federated={})
    async with AsyncExitStack() as stack:
        identities = []
        for path in entries.by_socket:
            await stack.enter_async_context(
                serve_plain(path, issuer.methods(path), name="identity", access=SocketAccess())
            )
            source = identity_from(f"unix://{path}", token_lifetime=600)
            identities.append(await stack.enter_async_context(source))
        served = await stack.enter_async_context(endpoint("nse", identities[0], [Takes(0.02)]))
        (url,) = await stack.enter_async_context(
            serve([f"unix://{tmp_path}/s"], served.methods(), identities[0], name="nse")
        )
        busy, idle = [await stack.enter_async_context(Pool(identities[1])) for _ in range(2)]
        seldom = client("seldom", [], RemoteNetworkService(idle), url=url)
        await seldom.request(ask("seldom"))
        chain, done = client("client", [], RemoteNetworkService(busy), url=url), asyncio.Event()
        load = asyncio.create_task(calls_until(done, chain, clients=3))
        await asyncio.sleep(9)
        await seldom.request(ask("late"))
        done.set()
        errors, _ = await load
        assert errors == []
        assert identities[0].generation >= 4
        await chain.aclose()
        await seldom.aclose()


async def test_a_call_that_runs_while_the_server_rotates_ends_on_its_connection(tmp_path):
    """And the next one is made on a new connection meanwhile."""
    server, mine = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    slow = Takes(0.3)
    served = endpoint("nse", server, [slow])
    async with (
        served,
        serve(["tcp://127.0.0.1:0"], served.methods(), server, name="nse") as urls,
        Pool(mine) as pool,
    ):
        chain = client("client", [], RemoteNetworkService(pool), url=urls[0])
        running = asyncio.create_task(chain.request(ask("one")))
        while not slow.running:
            await asyncio.sleep(0.01)
        first = await pool.channel(urls[0])._connection()
        rotate(server)
        await chain.request(ask("two"))
        assert await pool.channel(urls[0])._connection() is not first
        assert (await running).id

        async def is_left():
            return first.connection.is_closing()

        await until(is_left)
        await chain.aclose()


async def test_a_watch_goes_on_over_rotations(tmp_path):
    """It keeps the connection on which it began."""
    server, mine = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    told = asyncio.Queue()

    async def watch(_message, _incoming):
        while True:
            yield [await told.get()]

    methods = {"/test.Test/Watch": Streaming(HealthCheckRequest, watch)}
    async with serve([f"unix://{tmp_path}/s"], methods, server, name="s") as urls, Pool(mine) as pool:
        answers = pool.channel(urls[0]).stream("/test.Test/Watch", HealthCheckRequest(), HealthCheckResponse)
        for _ in range(3):
            told.put_nowait(HealthCheckResponse())
            assert len(await anext(answers)) == 1
            rotate(server)
            rotate(mine)
            await asyncio.sleep(0.02)
        await answers.aclose()


async def test_a_monitor_of_connections_sees_events_over_rotations(tmp_path):
    """The stream of a component further on is not interrupted by a rotation."""
    server, mine = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    served = endpoint("nse", server, [])
    async with (
        served,
        serve([f"unix://{tmp_path}/s"], served.methods(), server, name="nse") as urls,
        Pool(mine) as pool,
    ):
        from nsm.apis.connection import MonitorScopeSelector

        events = RemoteMonitor(pool, urls[0]).monitor(MonitorScopeSelector())
        await anext(events)
        chain = client("client", [], RemoteNetworkService(pool), url=urls[0])
        for number in range(3):
            await chain.request(ask(f"c{number}"))
            assert len((await anext(events)).connections) == 1
            rotate(server)
            rotate(mine)
        await events.aclose()
        await chain.aclose()


async def test_a_connection_that_is_being_made_during_a_rotation_is_asked_to_leave_at_once():
    """It has seen the former identity, whose end is near."""
    server, mine = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    async with serve(["tcp://127.0.0.1:0"], {}, server, name="s") as urls:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(urls[0].rpartition(":")[2]))
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = mine.client_context().wrap_bio(received, sent)
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(sent.read())
        await asyncio.sleep(0.05)  # its handshake has begun, with the identity of now
        rotate(server)
        heard, is_through = b"", False
        async with asyncio.timeout(2):
            while GOAWAY not in heard:
                with suppress(ssl.SSLWantReadError):
                    if not is_through:
                        tls.do_handshake()
                        is_through = True
                    while chunk := tls.read(65536):
                        heard += chunk
                writer.write(sent.read())
                if GOAWAY not in heard:
                    received.write(await reader.read(65536))
        writer.transport.abort()
