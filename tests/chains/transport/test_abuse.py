"""What an authenticated peer may do wrong: the others are served on, the caller gets an error, nothing is left."""

import asyncio
import contextlib
import os
import random
import resource
import socket
import stat

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.health import HealthCheckRequest
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Limits, MeshError, file_key, inode_url
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, RemoteNetworkService, Unary, check_health, network_service, serve
from nsm.chains.transport.server import Server

AUTHORITY = Authority.create("test.mesh")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


class Echo:
    async def request(self, call):
        return call.connection

    async def close(self, call): ...


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@contextlib.asynccontextmanager
async def server(handler=None, methods=None):
    identity = identity_of(AUTHORITY, "server")
    all_methods = {**network_service(handler or Echo()), **Health().methods(), **(methods or {})}
    async with serve(["tcp://127.0.0.1:0"], all_methods, identity, name="server") as urls:
        async with Pool(identity_of(AUTHORITY, "client"), dial_timeout=2) as pool:
            yield urls[0], pool


async def speak(url, data, wait=0.0):
    """Say `data` inside TLS, as a peer that is known; gives what came back."""
    port = int(url.rpartition(":")[2])
    context = identity_of(AUTHORITY, "rogue").client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    heard = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(wait or 0.03):
            while chunk := await reader.read(65536):
                heard += chunk
    writer.transport.abort()
    await asyncio.sleep(0)
    return heard


def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def request_of(*frames, headers=None):
    """A real request up to `frames`, which stand where its data would."""
    h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    h2.initiate_connection()
    plain = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "x"),
        (":path", "/networkservice.NetworkService/Request"),
        ("content-type", "application/grpc"),
    ]
    h2.send_headers(1, plain if headers is None else headers)
    return h2.data_to_send() + b"".join(frames)


HUGE = (4 * 1024 * 1024 + 1).to_bytes(4, "big")
CASES = {
    "not http2": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "nothing after the preface": PREFACE,
    "a frame of an unknown kind": PREFACE + SETTINGS + frame(0xFA, 0, 0, b"x"),
    "a frame that is too long": PREFACE + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01" + b"x" * 1000,
    "data without a call": PREFACE + SETTINGS + frame(0, 0, 1, b"x"),
    "an even stream": PREFACE + SETTINGS + frame(1, 4, 2, b"\x82"),
    "headers that cannot be decoded": PREFACE + SETTINGS + frame(1, 4, 1, b"\xff\xff\xff\xff"),
    "headers that never end": PREFACE + SETTINGS + frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82" * 8000) * 20,
    "pings without end": PREFACE + SETTINGS + frame(6, 0, 0, b"12345678") * 2000,
    "settings without end": PREFACE + SETTINGS * 2000,
    "a window that overflows": PREFACE + SETTINGS + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "the end of a stream that is none": PREFACE + SETTINGS + frame(3, 0, 7, b"\0\0\0\x08"),
    "a promise": PREFACE + SETTINGS + frame(5, 4, 1, b"\0\0\0\x02\x82"),
    "no method": request_of(headers=[(":method", "POST")]),
    "no content type": request_of(frame(0, 1, 1, b"\0\0\0\0\0"), headers=[(":method", "POST"), (":path", "/x")]),
    "a message of another length": request_of(frame(0, 1, 1, b"\0\0\0\0\x09xx")),
    "a message that is too long": request_of(frame(0, 0, 1, b"\0" + HUGE)),
    "a compressed message": request_of(frame(0, 1, 1, b"\x01\0\0\0\x01x")),
    "a message that is none": request_of(frame(0, 1, 1, b"\0\0\0\0\x04\xff\xff\xff\xff")),
    "no message": request_of(frame(0, 1, 1)),
    "two messages": request_of(frame(0, 1, 1, b"\0\0\0\0\0" * 2)),
    "a call that ends in the middle": request_of(frame(0, 0, 1, b"\0\0\0"), frame(3, 0, 1, b"\0\0\0\x08")),
    "a farewell in the middle": request_of(frame(7, 0, 0, b"\0\0\0\0\0\0\0\0"), frame(0, 1, 1, b"\0\0\0\0\0")),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_no_call_disturbs_nobody_else(case, capsys):
    async with server() as (url, pool):
        assert await check_health(pool, url)
        before = descriptors()
        await speak(url, CASES[case])
        assert await check_health(pool, url)
        await asyncio.sleep(0.05)
        assert descriptors() <= before
    assert "[error" not in capsys.readouterr().out


async def test_random_frames_disturb_nobody_else(capsys):
    """Whole frames of any kind, flags, stream and content, after a proper beginning."""
    luck = random.Random(7)
    async with server() as (url, pool):
        assert await check_health(pool, url)
        before = descriptors()
        for _ in range(60):
            frames = (
                frame(
                    luck.randrange(12),
                    luck.choice([0, 1, 4, 5, 8, 32]),
                    luck.choice([0, 1, 3, 2]),
                    luck.randbytes(luck.randrange(40)),
                )
                for _ in range(6)
            )
            await speak(url, (request_of() if luck.random() < 0.5 else PREFACE + SETTINGS) + b"".join(frames), 0.01)
        assert await check_health(pool, url)
        await asyncio.sleep(0.1)
        assert descriptors() <= before
    assert "[error" not in capsys.readouterr().out


class Rogue(asyncio.Protocol):
    """A server that answers each call with what a test wants."""

    def __init__(self, answer):
        self.answer = answer
        self.h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))

    def connection_made(self, transport):
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.stream = event.stream_id
            if isinstance(event, StreamEnded):
                self.answer(self)
        self.transport.write(self.h2.data_to_send())


OK = [(":status", "200"), ("content-type", "application/grpc")]


def plain(data, trailers=(("grpc-status", "0"),), headers=OK):
    def answer(rogue):
        rogue.h2.send_headers(rogue.stream, headers)
        rogue.h2.send_data(rogue.stream, data)
        rogue.h2.send_headers(rogue.stream, list(trailers), end_stream=True)

    return answer


def raw(data):
    def answer(rogue):
        rogue.transport.write(rogue.h2.data_to_send() + data)

    return answer


ANSWERS = {
    "a message that is none": plain(b"\0\0\0\0\x04\xff\xff\xff\xff"),
    "no message": plain(b""),
    "half a message": plain(b"\0\0\0\0\x09xx"),
    "a compressed message": plain(b"\x01\0\0\0\x01x"),
    "two messages": plain(b"\0\0\0\0\0" * 2),
    "no status": plain(b"\0\0\0\0\0", [("x", "y")]),
    "a status that is no number": plain(b"\0\0\0\0\0", [("grpc-status", "fine")]),
    "an unknown status": plain(b"\0\0\0\0\0", [("grpc-status", "77"), ("grpc-message", "%zz%")]),
    "not gRPC at all": plain(b"<html>", [("x", "y")], [(":status", "404"), ("content-type", "text/html")]),
    "garbage": raw(b"\0\0\x09\x07" + os.urandom(300)),
    "a reset": lambda rogue: rogue.h2.reset_stream(rogue.stream, 2),
    "a farewell": lambda rogue: rogue.h2.close_connection(2),
    "a farewell that took nothing": raw(frame(7, 0, 0, b"\0\0\0\0\0\0\0\0")),
    "the end": lambda rogue: rogue.transport.abort(),
    "a promise": raw(frame(5, 4, 1, b"\0\0\0\x02\x88")),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_that_is_none_is_an_error_at_once(case, capsys):
    """Of the mesh's own kind, so that nothing above has to know."""
    loop, context = asyncio.get_running_loop(), identity_of(AUTHORITY, "rogue").server_context()
    listening = await loop.create_server(lambda: Rogue(ANSWERS[case]), "127.0.0.1", 0, ssl=context)
    url = f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with Pool(identity_of(AUTHORITY, "client"), dial_timeout=2) as pool:
        before = loop.time()
        with pytest.raises(MeshError):
            await check_health(pool, url, timeout=5)
        assert loop.time() - before < 2
    listening.close()
    await listening.wait_closed()


async def test_what_a_later_version_may_say_is_passed_over():
    """Interim answers and frames of kinds that did not exist are no reason to give up (RFC 9113 5.5, 8.1)."""

    def answer(rogue):
        rogue.h2.send_headers(rogue.stream, [(":status", "103")])
        rogue.transport.write(rogue.h2.data_to_send() + frame(0xFA, 0, 0, b"x"))
        plain(b"\0\0\0\0\x02\x08\x01")(rogue)

    loop, context = asyncio.get_running_loop(), identity_of(AUTHORITY, "rogue").server_context()
    listening = await loop.create_server(lambda: Rogue(answer), "127.0.0.1", 0, ssl=context)
    url = f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with Pool(identity_of(AUTHORITY, "client"), dial_timeout=2) as pool:
        assert await check_health(pool, url, timeout=5)
    listening.close()
    await listening.wait_closed()


async def test_thousands_of_calls_at_once_share_a_connection():
    """Those that would be too many wait for their turn, in the order in which they were made."""
    running, most, begun = 0, 0, []

    async def wait(message, _incoming):
        nonlocal running, most
        begun.append(message.service)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return message

    async with server(methods={"/t/Wait": Unary(HealthCheckRequest, wait)}) as (url, pool):
        await check_health(pool, url)
        before = descriptors()
        channel = pool.channel(url)
        calls = [channel.unary("/t/Wait", HealthCheckRequest(service=f"{n}"), HealthCheckRequest) for n in range(3000)]
        answers = await asyncio.gather(*calls)
        assert descriptors() <= before
        assert [answer.service for answer, _ in answers] == begun == [f"{n}" for n in range(3000)]
        assert most <= 8 * Limits().calls  # on a busy machine some take so long that they give up their place


async def test_a_burst_on_a_fresh_connection_is_queued():
    """Whatever it is that the other side has not said yet: how many streams it takes."""

    async def echo(message, _incoming):
        return message

    async with server(methods={"/t/Echo": Unary(HealthCheckRequest, echo)}) as (url, pool):
        channel = pool.channel(url)
        calls = [channel.unary("/t/Echo", HealthCheckRequest(service=f"{n}"), HealthCheckRequest) for n in range(1500)]
        assert len(await asyncio.gather(*calls)) == 1500


async def test_calls_that_take_long_do_not_hold_up_those_behind_them():
    """Who is slow may be somebody else's endpoint: a place is held for a moment only."""
    never = asyncio.Event()

    async def wait(message, _incoming):
        await never.wait()
        return message

    async with server(methods={"/t/Wait": Unary(HealthCheckRequest, wait)}) as (url, pool):
        channel = pool.channel(url)
        slow = [
            asyncio.ensure_future(channel.unary("/t/Wait", HealthCheckRequest(), HealthCheckRequest))
            for _ in range(2 * Limits().calls)
        ]
        await asyncio.sleep(0.01)
        assert await check_health(pool, url, timeout=3)
        never.set()
        await asyncio.gather(*slow)


async def test_a_peer_that_does_not_read_holds_nobody_else_up():
    """Its calls wait for it; the others do not, and what waits for it ends with it."""
    big = Connection(id="c", labels={"x": "y" * 40_000})
    async with server() as (url, pool):
        context = identity_of(AUTHORITY, "lazy").client_context()
        port = int(url.rpartition(":")[2])
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1024)
        writer.transport.pause_reading()
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        data = codec.encode(NetworkServiceRequest(connection=Connection(id="c")))
        for number in range(1, 400, 2):
            headers = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "x"),
                (":path", "/networkservice.NetworkService/Request"),
                ("content-type", "application/grpc"),
            ]
            h2.send_headers(number, headers)
            h2.send_data(number, b"\0" + len(data).to_bytes(4, "big") + data, end_stream=True)
        writer.write(h2.data_to_send())
        await asyncio.sleep(0.1)
        chain = Chain([Begin()], RemoteNetworkService(pool))
        async with asyncio.timeout(5):
            answer = await chain.request(Call(NetworkServiceRequest(connection=codec.clone(big)), target=url))
        assert answer.labels == big.labels
        writer.transport.abort()


async def test_a_call_that_waits_to_be_written_fails_when_its_connection_breaks():
    """It is not left to its deadline."""
    async with server() as (url, pool):
        await check_health(pool, url)
        protocol = await pool.channel(url)._connection()
        protocol.pause_writing()
        call = asyncio.create_task(check_health(pool, url, timeout=30))
        await asyncio.sleep(0.05)
        protocol.connection._transport.abort()
        with pytest.raises(MeshError, match="went away"):
            await asyncio.wait_for(call, 2)
        assert await check_health(pool, url)


async def test_a_peer_cannot_fill_the_table_of_descriptors(tmp_path):
    """Those that no message names are closed when there are too many; those that are in use stay."""
    used = []

    async def use(message, incoming):
        used.append(await incoming.inbox.take(*file_key(inode_url(message.service)), timeout=1))
        incoming.inbox.settle(*file_key(inode_url(message.service)))
        return message

    files = [tmp_path / f"{number}" for number in range(700)]
    for file in files:
        os.mknod(file, stat.S_IFSOCK | 0o600)
    methods = {**Health().methods(), "/t/Use": Unary(HealthCheckRequest, use)}
    identity = identity_of(AUTHORITY, "server")
    async with serve([f"unix://{tmp_path}/s"], methods, identity, name="s") as urls:
        async with Pool(identity_of(AUTHORITY, "client")) as pool:
            channel = pool.channel(urls[0])
            kept = HealthCheckRequest(service=str(files[0]))
            await channel.unary("/t/Use", kept, HealthCheckRequest, files=[str(files[0])])
            before = descriptors()
            for begin in range(0, 700, 100):
                padding = HealthCheckRequest(service="x" * 200)
                sent = [str(file) for file in files[begin : begin + 100]]
                with pytest.raises(MeshError):
                    await channel.unary("/t/None", padding, HealthCheckRequest, files=sent)
            assert descriptors() - before <= Limits().descriptors + 1
            assert os.path.samefile(used[0].path, files[0])
            await channel.unary("/t/Use", kept, HealthCheckRequest, files=[str(files[0])])
            assert len(used) == 2
        for use in used:
            use.release()


async def test_a_server_without_descriptors_left_says_so_now_and_then_and_goes_on(capsys):
    """It does not turn in circles, and accepts again when there are some."""
    identity = identity_of(AUTHORITY, "server")
    one = Server(Health().methods(), identity, "server")
    from nsm.chains.transport import SocketAccess, parse_address

    url = await one.listen(parse_address("tcp://127.0.0.1:0"), SocketAccess())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 5, before[1]))
        filling = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filling.append(os.dup(0))
            await asyncio.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for descriptor in filling:
                os.close(descriptor)
        told = capsys.readouterr().out.count("cannot accept")
        assert 1 <= told <= 3
    async with Pool(identity_of(AUTHORITY, "client")) as pool:
        assert await check_health(pool, url)
    await one.stop(0)
