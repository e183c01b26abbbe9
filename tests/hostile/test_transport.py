"""Peers that would have a component to themselves: floods, bombs, silence. A bystander's calls go on meanwhile."""

import asyncio
import contextlib
import gc
import os
import pickle
import ssl
import sys
import time
from contextlib import asynccontextmanager

import pytest
from hpack import Encoder

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService
from nsm.chains.composed import RegistrySettings, memory_registry, nsmgr
from nsm.chains.core import (
    SERVICES,
    Begin,
    Call,
    Chain,
    Element,
    InvalidRequest,
    Limits,
    MeshError,
    RegistryCall,
    RegistryPath,
    counts,
)
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import (
    Health,
    Pool,
    RemoteNetworkService,
    RemoteRegistry,
    SocketAccess,
    check_health,
    network_service,
    serve,
    serve_plain,
)
from tests.hostile.flood import Flood

AUTHORITY = Authority.create("test.mesh")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
CALL = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "x"),
    (":path", "/networkservice.NetworkService/Request"),
    ("content-type", "application/grpc"),
]
BLOCK = Encoder().encode(CALL)
MESSAGE = codec.encode(NetworkServiceRequest(connection=Connection(id="c")))


def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def streams(*frames, number):
    """`frames` of each of so many streams; each frame is (kind, flags, body)."""
    return b"".join(
        frame(kind, flags, stream, body) for stream in range(1, 2 * number, 2) for kind, flags, body in frames
    )


class Echo:
    async def request(self, call):
        return call.connection

    async def close(self, call): ...


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@asynccontextmanager
async def mesh(limits=None, lifetime=3600):
    """A component, and a bystander's pool."""
    identity = identity_of(AUTHORITY, "server")
    methods = {**network_service(Echo()), **Health().methods()}
    async with serve(["tcp://127.0.0.1:0"], methods, identity, name="server", limits=limits) as urls:
        async with Pool(identity_of(AUTHORITY, "bystander"), dial_timeout=2) as pool:
            await check_health(pool, urls[0])
            yield urls[0], pool


def flood(url, seconds=0.8, **values):
    """Runs beside the test, at the lowest priority; known to the mesh unless it says otherwise."""
    values.setdefault("pem", AUTHORITY.issue("spiffe://test.mesh/attacker").pem())
    port = int(url.rpartition(":")[2]) if url.startswith("tcp") else 0
    return running(Flood(port=port, seconds=seconds, **values))


@asynccontextmanager
async def running(attack):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile.flood", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    process.stdin.write(pickle.dumps(attack))
    process.stdin.write_eof()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def latencies(call, until):
    """Seconds of each call of a bystander, one after the other, until `until` is done."""
    taken = []
    while not until():
        begun = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - begun)
        await asyncio.sleep(0)
    return sorted(taken)


async def p99_beside(url, pool, attack):
    """The p99 of a bystander's calls in milliseconds: quiet, and beside an attack; it made that many connections."""

    async def call():
        assert await check_health(pool, url, timeout=5)

    end = time.monotonic() + 0.4
    quiet = await latencies(call, lambda: time.monotonic() > end)
    async with attack as process:
        beside = await latencies(call, lambda: process.returncode is not None)
        assert len(beside) > 50
        made = int((await process.stdout.read()).decode() or 0)
    return 1000 * quiet[int(len(quiet) * 0.99)], 1000 * beside[int(len(beside) * 0.99)], made


FLOODS = {
    "calls without a message": streams((1, 4, BLOCK), number=20_000),
    "calls that are taken back": streams((1, 4, BLOCK), (3, 0, b"\0\0\0\x08"), number=8_000),
    "calls": streams((1, 4, BLOCK), (0, 1, b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE), number=8_000),
    "calls of no method": streams((1, 5, Encoder().encode([(":method", "POST"), (":path", "/x")])), number=8_000),
    "pings": frame(6, 0, 0, b"12345678") * 20_000,
    "settings": frame(4, 0, 0) * 20_000,
    "settings that nobody knows": b"".join(
        frame(4, 0, 0, b"".join(n.to_bytes(2, "big") + b"\0\0\0\1" for n in range(begin, begin + 1000)))
        for begin in range(1000, 60_000, 1000)
    ),
    "windows": streams((1, 4, BLOCK), number=900) + frame(8, 0, 0, b"\0\0\0\1") * 30_000,
    "priorities": frame(2, 0, 1, b"\0\0\0\0\1") * 20_000,
    "frames of no kind": frame(0xFA, 0, 0, b"x") * 20_000,
    "a message in single bytes": frame(1, 4, 1, BLOCK)
    + frame(0, 0, 1, b"\0\0\0\xff\0")
    + frame(0, 0, 1, b"x") * 30_000,
    "data that is empty": frame(1, 4, 1, BLOCK) + frame(0, 0, 1) * 30_000,
    "data of a call that has ended": streams((1, 5, BLOCK), number=1) + frame(0, 0, 1, b"x") * 30_000,
    "headers without end": frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82" * 16_000) * 100,
    "headers that unfold": frame(1, 4, 1, Encoder().encode([("x", "y" * 4000)]) + b"\xbe" * 16_000),
}


GROUPS = [list(FLOODS)[begin : begin + 4] for begin in range(0, len(FLOODS), 4)]


@pytest.mark.parametrize("attacks", GROUPS, ids=", ".join)
async def test_a_flood_leaves_a_bystander_its_calls(attacks, capsys):
    """Whatever one peer sends, on several connections of its own, others are answered in time."""
    repeat = tuple(FLOODS[attack] for attack in attacks)
    async with mesh() as (url, pool):
        quiet, beside, made = await p99_beside(url, pool, flood(url, first=PREFACE, repeat=repeat, connections=8))
        assert beside < max(5 * quiet, 100)
        assert made
    assert "[error" not in capsys.readouterr().out


async def test_thousands_of_silent_connections_cost_next_to_nothing(capsys):
    """They make room for each other, nobody else waits for them, and what they cost is given back."""
    async with mesh() as (url, pool):
        gc.collect()
        before = rss()
        quiet, beside, made = await p99_beside(url, pool, flood(url, pem=b"", connections=1500, seconds=1.5))
        assert made > 150
        assert beside < max(5 * quiet, 100)
        assert rss() - before < 16
        assert await check_health(pool, url)
    assert capsys.readouterr().out.count("sent away") <= 3


def hello():
    """What a client of TLS says first."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        identity_of(AUTHORITY, "x").client_context().wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


async def at_last(tries):
    """What the first try gives that does not fail; as a client of the mesh does, which shares its attacker's address."""
    for number, attempt in enumerate(tries):
        await asyncio.sleep(min(0.02 * number, 0.2))
        with contextlib.suppress(MeshError):
            return await attempt
    return False


@pytest.mark.parametrize("first", [hello()[:20], hello()], ids=["in the first words", "before it says who it is"])
async def test_handshakes_that_stop_in_the_middle_hold_nobody_up(first):
    """Who began to shake hands and then says nothing gives way to who waits, though both have one address."""
    async with mesh() as (url, _):
        async with flood(url, pem=b"", first=first, connections=300, seconds=10) as process:
            await asyncio.sleep(1)
            for number in range(3):
                async with Pool(identity_of(AUTHORITY, f"other-{number}"), dial_timeout=5) as other:
                    assert await at_last(check_health(other, url, timeout=5) for _ in range(30))
            with contextlib.suppress(ProcessLookupError):  # it has ended, where all of this took long
                process.kill()


async def test_one_identity_has_so_many_connections_and_no_more():
    """Others have theirs."""
    refused = counts.LIMITS["connections"]
    async with mesh(Limits(connections=3)) as (url, pool):
        async with flood(url, first=PREFACE, connections=8, seconds=1) as process:
            await process.wait()
        assert counts.LIMITS["connections"] > refused
        assert await check_health(pool, url)


async def test_the_issuer_s_socket_stays_free_for_others(tmp_path):
    """One process has so many connections there, and those that say nothing make room for those that do."""
    path, refused = str(tmp_path / "s"), counts.LIMITS["connections"]
    access = SocketAccess()
    async with serve_plain(path, Health().methods(), name="identity", access=access, limits=Limits(connections=5)):
        async with flood(url="", path=path, pem=b"", first=PREFACE, connections=20, seconds=1):
            await asyncio.sleep(0.5)
            async with flood(url="", path=path, pem=b"", connections=600, seconds=2):
                await asyncio.sleep(1)
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(PREFACE)
                async with asyncio.timeout(3):
                    assert await reader.read(9)
                writer.close()
        assert counts.LIMITS["connections"] > refused


async def spoken(url, data, wait):
    """What a peer that is known hears when it says `data`, for `wait` seconds or until the connection ends."""
    context = identity_of(AUTHORITY, "attacker").client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=context)
    heard = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        writer.write(data)
        async with asyncio.timeout(wait):
            while chunk := await reader.read(65536):
                heard += chunk
    writer.transport.abort()
    return heard


async def test_a_message_that_is_too_long_is_refused_by_its_length_alone():
    """Nobody waits for its four megabytes, and the connection goes on."""
    refused = counts.LIMITS["request"]
    async with mesh() as (url, pool):
        length = (65537).to_bytes(4, "big")
        begun = time.monotonic()
        await spoken(url, PREFACE + streams((1, 4, BLOCK), (0, 0, b"\0" + length), number=3), 0.5)
        assert time.monotonic() - begun < 3
        assert counts.LIMITS["request"] == refused + 3
        assert await check_health(pool, url)


@pytest.mark.parametrize("size", [70_000, 200_000, 3_000_000])
async def test_who_sends_too_much_hears_why_and_does_not_wait(size):
    """However much of it was on its way."""
    async with mesh() as (url, pool):
        chain = Chain([Begin()], RemoteNetworkService(pool))
        call = call_of("c", url)
        call.connection.labels["x"] = "y" * size
        with pytest.raises(InvalidRequest, match="too large: request is"):
            await asyncio.wait_for(chain.request(call), 5)
        assert await check_health(pool, url)


async def test_a_call_whose_message_does_not_come_ends(monkeypatch):
    """It does not wait for ever, and takes nobody's place meanwhile."""
    monkeypatch.setattr("nsm.chains.transport.server.BODY_TIMEOUT", 0.2)
    ended = counts.LIMITS["slow_messages"]
    async with mesh() as (url, pool):
        await spoken(url, PREFACE + streams((1, 4, BLOCK), number=50) + frame(0, 0, 1, b"\0\0"), 0.6)
        assert counts.LIMITS["slow_messages"] == ended + 50
        assert await check_health(pool, url)


HEADERS = {
    "a deadline of many digits": [*CALL, ("grpc-timeout", "1" + "0" * 400 + "S")],
    "a deadline that is none": [*CALL, ("grpc-timeout", "soon")],
    "a long path": [*CALL, ("path", '{"Index":1,"PathSegments":[' + "x" * 60_000)],
    "a long token": [*CALL, ("nsm-client-token", "t" * 9_000)],
    "many small headers": [*CALL, *((f"x-{n}", "y") for n in range(600))],
    "a header that is not ASCII": [*CALL, ("x", "\u00e9\u202e")],
    "a long name of a method": [(name, "/" + "x" * 9_000 if name == ":path" else value) for name, value in CALL],
}


@pytest.mark.parametrize("case", HEADERS)
async def test_headers_of_a_call_fail_that_call_only(case, capsys):
    """With one line that says why, short enough for every component on its way back."""
    block, number = Encoder().encode(HEADERS[case], huffman=False), 1
    parts = [block[begin : begin + 16_000] for begin in range(0, len(block), 16_000)]
    call = b"".join(
        frame(9 if begin else 1, 4 if begin == len(parts) - 1 else 0, number, part) for begin, part in enumerate(parts)
    )
    body = frame(0, 1, number, b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE)
    async with mesh() as (url, pool):
        heard = await spoken(url, PREFACE + call + body + frame(6, 0, 0, b"12345678"), 0.4)
        assert frame(6, 1, 0, b"12345678") in heard  # it still answers on that connection
        assert len(heard) < 4_000
        assert await check_health(pool, url)
    assert "[error" not in capsys.readouterr().out


class To(Element):
    """Sends everything on to `url`."""

    def __init__(self, url):
        self._url = url

    async def request(self, call, rest):
        call.target = self._url
        return await rest.request(call)


@pytest.mark.parametrize("text", ["x" * 70_000, "\U0001f40d" * 70_000, "\x1b[2J" * 20_000], ids=["long", "wide", "raw"])
async def test_a_long_error_does_not_break_the_connection_that_it_comes_over(text):
    """The one between two components carries everybody's calls."""

    class Fails(Echo):
        async def request(self, call):
            if call.connection.id == "attacker":
                raise InvalidRequest(f"{text} is no address")
            return call.connection

    far = identity_of(AUTHORITY, "far")
    async with serve(["tcp://127.0.0.1:0"], network_service(Fails()), far, name="far") as far_urls:
        async with Pool(identity_of(AUTHORITY, "server")) as between:
            chain, near = (
                Chain([Begin(), To(far_urls[0])], RemoteNetworkService(between)),
                identity_of(AUTHORITY, "near"),
            )
            async with serve(["tcp://127.0.0.1:0"], network_service(chain), near, name="near") as urls:
                async with Pool(identity_of(AUTHORITY, "client")) as pool:
                    chain = Chain([Begin()], RemoteNetworkService(pool))
                    await chain.request(call_of("bystander", urls[0]))
                    shared = await between.channel(far_urls[0])._connection()
                    with pytest.raises(InvalidRequest) as error:
                        await chain.request(call_of("attacker", urls[0]))
                    assert len(str(error.value)) < 2_000
                    assert str(error.value).isprintable()
                    assert await between.channel(far_urls[0])._connection() is shared
                    await chain.request(call_of("bystander", urls[0]))


def call_of(name, url):
    return Call(NetworkServiceRequest(connection=Connection(id=name, network_service="s")), target=url)


async def test_what_passes_a_manager_passes_the_registry_or_fails_alone():
    """The metadata grows by a token at each hop; however long it is, others register on over the same connection."""
    identities = {name: identity_of(AUTHORITY, name) for name in ("registry", "nsmgr", "client")}
    kept = memory_registry(identities["registry"], RegistrySettings(policies=[]))
    async with serve(["tcp://127.0.0.1:0"], kept.methods(), identities["registry"], name="registry") as there:
        async with Pool(identities["nsmgr"]) as between, Pool(identities["client"]) as pool:
            manager = nsmgr(
                "nsmgr",
                identities["nsmgr"],
                between,
                own_url="tcp://127.0.0.1:1",
                registry_url=there[0],
                server_policies=[],
                client_policies=[],
            )
            async with serve(["tcp://127.0.0.1:0"], manager.methods(), identities["nsmgr"], name="nsmgr") as urls:
                registry = RemoteRegistry(SERVICES, pool)

                async def register(name, token=""):
                    path = RegistryPath(0, [token]) if token else RegistryPath()
                    return await registry.register(RegistryCall(NetworkService(name=name), False, path, target=urls[0]))

                await register("before")
                shared = await between.channel(there[0])._connection()
                for size in (1_000, 8_000, *range(14_000, 17_000, 100), 60_000, 200_000):
                    with contextlib.suppress(MeshError):
                        await register("long", "t" * size)
                assert await between.channel(there[0])._connection() is shared
                assert (await register("after")).name == "after"
            await manager.aclose()
    await kept.aclose()
