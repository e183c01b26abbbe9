"""The webhook's port is open to a whole cluster: what others send there neither stops it nor fills its log."""

import asyncio
import contextlib
import json
import ssl
from contextlib import asynccontextmanager

import hypothesis
import pytest
from hypothesis import strategies as st

from nsm.webhook import bodies, door
from nsm.webhook import server as module
from nsm.webhook.certificate import Chain
from tests.webhook.reviews import KEY, Cluster, pod, review, workload
from tests.webhook.serving import HOST, Caller, made, server

HEAD = f"POST /mutate HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
ATTACKER = "127.0.0.66"


@pytest.fixture
def impatient(monkeypatch):
    """What takes seconds elsewhere takes tenths here."""
    monkeypatch.setattr(door, "_HANDSHAKE", 1.5)
    monkeypatch.setattr(module, "_IDLE", 0.3)
    monkeypatch.setattr(module, "_LINGER", 0.05)
    monkeypatch.setattr(bodies, "_TIME", 0.3)


@asynccontextmanager
async def attacked():
    """A webhook, and a way to connect to it from the attacker's address: with TLS or without."""
    mine = made()
    async with server() as (port, certificate):
        certificate.show(Chain.read(mine.pem))
        trusting = ssl.create_default_context(cadata=mine.authority)
        writers = []

        async def connect(*, tls=True):
            more = {"ssl": trusting, "server_hostname": HOST} if tls else {}
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ATTACKER, 0), **more)
            writers.append(writer)
            return reader, writer

        async with Caller(port, mine.authority) as bystander:
            bystander._session.connector._force_close = True  # idle ones are ended soon here
            try:
                yield connect, bystander
            finally:
                for writer in writers:
                    writer.transport.abort()


async def is_answered(bystander):
    async with asyncio.timeout(5):
        status, answer = await bystander.post("/mutate", json=review(pod("kernel://a")))
    return status == 200 and answer["response"]["allowed"]


BEGINNINGS = {
    "nothing": "",
    "half a head": HEAD,
    "no body": f"{HEAD}Content-Length: 1000\r\n\r\n",
    "half a body": f'{HEAD}Content-Length: 1000\r\n\r\n{{"kind"',
    "half a chunk": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_who_goes_no_further_is_sent_away_and_others_are_answered_meanwhile(beginning, capsys):
    async with attacked() as (connect, bystander):
        slow = []
        for _ in range(20):
            reader, writer = await connect()
            writer.write(BEGINNINGS[beginning].encode())
            slow.append(reader)
        assert await is_answered(bystander)
        async with asyncio.timeout(10):
            told = [await reader.read() for reader in slow]
        assert await is_answered(bystander)
    if "body" in beginning or "chunk" in beginning:
        assert all(b"408" in each and b"the review did not arrive within" in each for each in told)
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_trickles_is_not_waited_for(capsys):
    async with attacked() as (connect, bystander):
        reader, writer = await connect()
        writer.write(f"{HEAD}Content-Length: 1000\r\n\r\n".encode())
        answering = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(10):
            while not answering.done():
                writer.write(b" ")
                await asyncio.sleep(0.01)
        assert b" 408 " in answering.result()
        assert await is_answered(bystander)
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("impatient")
async def test_connections_that_say_nothing_before_tls_are_few_by_address_and_end():
    async with attacked() as (connect, bystander):
        silent = [await connect(tls=False) for _ in range(300)]
        assert await is_answered(bystander)
        async with asyncio.timeout(10):
            for reader, _ in silent:
                try:
                    assert await reader.read() == b""
                except ConnectionResetError:
                    pass  # above the limit: closed with what was not read


REQUESTS = {
    "too large, said": f"{HEAD}Content-Length: 99999999\r\n\r\n".encode(),
    "a length that is none": f"{HEAD}Content-Length: {'9' * 3000}\r\n\r\n".encode(),
    "a chunk that is none": f"{HEAD}Transfer-Encoding: chunked\r\n\r\nZZ\r\n".encode(),
    "compressed": f"{HEAD}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd".encode(),
    "many headers": (HEAD + "".join(f"X-{n}: y\r\n" for n in range(500)) + "\r\n").encode(),
    "a long header": f"{HEAD}X: {'y' * 20000}\r\n\r\n".encode(),
    "a long path": f"POST /{'x' * 20000} HTTP/1.1\r\n\r\n".encode(),
    "no HTTP": b"\x00\xff\x1b[31m\r\n\r\n",
    "another method": f"DELETE /mutate HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    "deep": (b"[" * 200_000),
    "deep mappings": (b'{"a":' * 100_000),
    "a million lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "a long number": b'{"kind": ' + b"9" * 10_000 + b"}",
    "NaN": json.dumps(review({**pod("kernel://a"), "spec": {"containers": [{"name": float("nan")}]}})).encode(),
    "half a pair": b'{"apiVersion": "\\ud800"}',
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", REQUESTS)
async def test_what_is_no_review_is_refused_in_one_line(name, capsys):
    content = REQUESTS[name]
    async with attacked() as (connect, bystander):
        reader, writer = await connect()
        if not content.startswith((b"POST", b"DELETE", b"\x00")):
            content = f"{HEAD}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content
        writer.write(content)
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer[:10] == b"HTTP/1.1 4" or answer[:10] == b"HTTP/1.0 4", answer[:200]
        assert await is_answered(bystander)
    output = "".join(capsys.readouterr())
    assert "Traceback" not in output
    assert "\x1b[31m" not in output


async def test_who_goes_away_in_the_middle_of_a_body_leaves_nothing_in_the_log(capsys):
    async with attacked() as (connect, bystander):
        for _ in range(5):
            _, writer = await connect()
            writer.write(f"{HEAD}Content-Length: 1000\r\n\r\n{{".encode())
            await writer.drain()
            writer.transport.abort()
        assert await is_answered(bystander)
        await asyncio.sleep(0.05)
    assert "Traceback" not in "".join(capsys.readouterr())


async def test_bodies_of_one_address_do_not_take_the_memory_of_all(monkeypatch):
    monkeypatch.setattr(bodies, "_TIME", 2.0)
    monkeypatch.setattr(bodies, "_AT_ONCE", 2)
    async with attacked() as (connect, bystander):
        large = b" " * (3 * 2**20 - 10_000)
        readers = []
        for _ in range(3):
            reader, writer = await connect()
            writer.write(f"{HEAD}Content-Length: {3 * 2**20}\r\n\r\n".encode() + large)
            readers.append(reader)
        assert await is_answered(bystander)
        async with asyncio.timeout(10):
            told = [await reader.readline() for reader in readers]
        assert sum(b" 429 " in each for each in told) >= 2
        assert await is_answered(bystander)


# --- whatever an object is like, the answer is a verdict or a clean refusal

words = st.text(max_size=20) | st.sampled_from(
    ["\x1b[2J", "\u202e", "\x00", "a\nb", "\ud800", "kernel://a", "%d", "~/"]
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | words
trees = st.recursive(plain, lambda more: st.lists(more, max_size=3) | st.dictionaries(words, more, max_size=3))
annotations = st.one_of(
    words,
    trees,
    st.from_regex(r"(kernel|memif|vfio|x)://[^/]{0,20}(/[^?]{0,20})?(\?.{0,20})?", fullmatch=True),
    st.lists(st.sampled_from(["kernel://a/nsm-1", "kernel://b", "vfio://c?sriovToken=x/y"])).map(",".join),
)
containers = st.lists(
    st.dictionaries(st.sampled_from(["name", "env", "image", "volumeMounts"]), trees, max_size=3) | trees, max_size=3
)
specs = trees | st.fixed_dictionaries(
    {}, optional={"containers": containers | trees, "initContainers": containers | trees, "volumes": trees, "os": trees}
)
metadata = st.fixed_dictionaries(
    {"namespace": st.just("default")},
    optional={
        "name": trees,
        "generateName": trees,
        "labels": trees | st.dictionaries(words, words, max_size=3),
        "annotations": trees | st.fixed_dictionaries({KEY: annotations}, optional={f"{KEY}/injected": trees}),
        "ownerReferences": trees,
        "deletionTimestamp": trees,
    },
)
objects = st.builds(
    lambda make, about, spec: {**make, "metadata": about, **({"spec": spec} if make["kind"] == "Pod" else {})},
    st.sampled_from([pod(), workload("Deployment"), workload("CronJob"), {"kind": "Namespace"}]),
    metadata,
    specs,
)


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(objects, st.sampled_from(["CREATE", "UPDATE", "DELETE"]), trees)
async def test_an_object_of_any_kind_is_answered_or_refused(item, operation, before):
    document = review(item, operation, before=before)
    document["request"]["namespace"] = "default"
    try:
        answer = await Cluster().admission.review(document)
    except ValueError:
        return  # a bad request
    response = answer["response"]
    assert response["uid"] == "u-1"
    message = response.get("status", {}).get("message", "")
    assert response["allowed"] == (not message)
    json.dumps(answer, allow_nan=False)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(trees | st.fixed_dictionaries({}, optional={"request": trees, "kind": words, "apiVersion": words}))
async def test_a_document_of_any_kind_is_answered_or_refused(document):
    if isinstance(document, dict) and "request" in document:
        document |= {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    with contextlib.suppress(ValueError):
        await Cluster().admission.review(document)
