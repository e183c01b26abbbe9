"""Attacks by what is named beside descriptors, and by descriptors themselves."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded, TrailersReceived

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.health import HealthCheckRequest
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import endpoint, endpoints_client
from nsm.chains.core import (
    Begin,
    Call,
    Chain,
    Element,
    Handler,
    InvalidRequest,
    MeshError,
    Refused,
    RegistryCall,
    Unavailable,
)
from nsm.chains.identity.source import identity_from
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.transport import RemoteNetworkService, check_health, network_service, parse_address, serve, wire
from nsm.chains.transport.rpc import REQUEST, TOKEN, TOKEN_EXPIRES

from .attacker import Attacker, endpoint_record, inode_url_of, send_files, service_record
from .conftest import authority_pem
from .mesh import until

PATHS = ["file:///proc/self/ns/net", "file:///proc/1/ns/net", "/proc/self/ns/net", "unix:///proc/self/ns/net"]


def interfaces(network):
    """The names of the interfaces in the namespace whose file is at `/proc/PID/ns/net`."""
    lines = Path(network.replace("/ns/net", "/net/dev")).read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


@pytest.fixture
def anything_is_sent(monkeypatch):
    """Our own transport sends namespaces and sockets only; an attacker has no such manners."""
    monkeypatch.setattr(wire, "open_to_send", lambda path: os.dup(path) if isinstance(path, int) else _opened(path))


def _opened(path):
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


# --- paths that peers name


class Answers(Element):
    """An endpoint that says where its end of the wire is as it likes."""

    def __init__(self, url):
        self._url = url

    async def request(self, call: Call, rest: Handler):
        call.connection.mechanism = Mechanism(
            cls="LOCAL", type="KERNEL", parameters={INODE_URL: self._url, INTERFACE_NAME: "evil-end"}
        )
        return await rest.request(call)


@contextlib.asynccontextmanager
async def evil_endpoint(attacker, tmp_path, elements):
    """The attacker's own endpoint, of a service of its own."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(endpoint("evil-nse", attacker.identity, elements))
        url = f"unix://{tmp_path}/evil.sock"
        await stack.enter_async_context(serve([url], server.methods(), attacker.identity, name="evil"))
        chain = endpoints_client(attacker.target.urls["nsmgr"], attacker.pool, [SendUrl()])
        await attacker.register(service_record("evil-service"))
        await chain.register(RegistryCall(endpoint_record("evil-nse", "evil-service", url)))
        try:
            yield server
        finally:
            with contextlib.suppress(MeshError):
                await chain.unregister(RegistryCall(NetworkServiceEndpoint(name="evil-nse")))
            await chain.aclose()


@pytest.mark.parametrize("url", PATHS)
async def test_an_endpoint_that_answers_with_a_path_gets_no_interface_there(mesh, attacker, tmp_path, url):
    node = f"/proc/{mesh.pids['forwarder']}/ns/net"
    async with evil_endpoint(attacker, tmp_path, [Answers(url)]) as server:
        asked = attacker.connection("path-answer", service="evil-service")
        with pytest.raises(MeshError, match="is a path of the answering component's"):
            await attacker.request(asked, attacker.kernel(), files=[attacker.network])
        assert "evil-end" not in interfaces(node)
        assert len(server.begin) == 0  # what it had of the connection was closed


@pytest.mark.parametrize("url", PATHS)
async def test_an_endpoint_of_the_composed_chains_is_not_believed_a_path_either(
    composed, attacker_of_composed, tmp_path, url
):
    attacker = attacker_of_composed
    async with evil_endpoint(attacker, tmp_path, [Answers(url)]):
        asked = attacker.connection("path-answer", service="evil-service")
        with pytest.raises(MeshError, match="is a path of the answering component's"):
            await attacker.request(asked, attacker.kernel(), files=[attacker.network])


async def test_a_path_in_an_answer_over_tcp_is_refused(composed, attacker_of_composed):
    attacker, chain = attacker_of_composed, Chain([Begin(), Answers(PATHS[0])])
    async with serve(["tcp://127.0.0.1:0"], network_service(chain), attacker.identity, name="evil") as urls:
        asking = Chain([Begin()], RemoteNetworkService(attacker.pool))
        with pytest.raises(Refused, match="file:///proc/self/ns/net is a path of the answering component's"):
            await asking.request(Call(NetworkServiceRequest(connection=attacker.connection("c")), target=urls[0]))


@pytest.mark.parametrize("component", ["nsmgr", "nsmgr tcp", "forwarder", "endpoint"])
@pytest.mark.parametrize("kind", ["KERNEL", "NOOP", "MEMIF"])
async def test_a_path_in_a_request_is_refused_by_every_component(mesh, attacker, component, kind):
    """An endpoint that has no use for it would send its descriptor back."""
    named = Mechanism(cls="LOCAL", type=kind, parameters={INODE_URL: "file:///etc/shadow"})
    for chosen, preferences in ((named, []), (None, [named])):
        asked = attacker.connection("path", mechanism=chosen)
        with pytest.raises(MeshError, match="file:///etc/shadow is a path of the caller's"):
            await attacker.request(asked, *preferences, url=mesh.urls[component])
    channel = attacker.pool.channel(mesh.urls[component])
    assert not (await channel._connection()).inbox or not len((await channel._connection()).inbox)


async def test_a_name_that_is_long_or_no_ascii_is_cut_in_the_error(mesh, attacker):
    for url in ("file:///" + "x" * 5000, "file:///\x1b[31m\n\u202e", "inode://²/1", "inode://1/" + "9" * 400):
        with pytest.raises(MeshError) as raised:
            await attacker.request(attacker.connection("odd"), attacker.kernel(inode_url=url))
        assert len(str(raised.value)) < 400
        assert str(raised.value).isprintable()
        assert "unexpected" not in str(raised.value)


# --- files of a manager


@pytest.mark.parametrize("url", ["unix:///", "unix:/etc/shadow", "UNIX:///etc", "inode:/etc/shadow", "file:///etc"])
@pytest.mark.parametrize("component", ["nsmgr", "nsmgr tcp"])
async def test_a_path_is_no_place_that_an_endpoint_can_be_registered_at(mesh, attacker, url, component):
    with pytest.raises(MeshError):
        await attacker.register(endpoint_record("thief", "stolen", url), url=mesh.urls[component])
    assert await attacker.find(NetworkServiceEndpoint(network_service_names=["stolen"])) == []


async def test_a_manager_sends_no_file_of_its_own_to_who_asks_for_a_record(composed, attacker_of_composed):
    """The registry keeps such a URL as a word: for the manager nobody is there."""
    attacker = attacker_of_composed
    with contextlib.suppress(MeshError):  # that of a registry that knows better
        await attacker.register(
            endpoint_record("thief", "stolen", "unix:///etc/shadow"), url=composed.urls["registry tcp"]
        )
    found = await attacker.find(NetworkServiceEndpoint(network_service_names=["stolen"]))
    assert [each for each in found if not each.deleted] == []
    assert len((await attacker.pool.channel(composed.urls["nsmgr"])._connection()).inbox) == 0


async def test_a_namespace_is_not_taken_for_an_endpoints_socket(mesh, attacker):
    record = endpoint_record("thief", "stolen", inode_url_of(attacker.network))
    with pytest.raises(InvalidRequest, match="received a namespace"):
        await attacker.register(record, files=[attacker.network])


# --- descriptors of others


@pytest.mark.parametrize("component", ["nsmgr tcp", "nsmgr", "forwarder"])
async def test_naming_a_victims_namespace_does_not_lead_there(mesh, attacker, component):
    """Its descriptor is with the forwarder, since the victim has a wire; who names it has to have sent it."""
    before = interfaces(mesh.networks["victim"])
    preference = attacker.kernel(inode_url=inode_url_of(mesh.networks["victim"]))
    with pytest.raises(MeshError, match="only unix sockets carry|did not arrive"):
        await attacker.request(attacker.connection("named"), preference, url=mesh.urls[component])
    assert interfaces(mesh.networks["victim"]) == before


async def test_naming_a_namespace_takes_one_that_came_for_it(composed, attacker_of_composed):
    """A descriptor that a connection of the mesh uses is not there for another one that sends none."""
    attacker = attacker_of_composed
    await attacker.request(attacker.connection("one"), attacker.kernel(), files=[attacker.network])
    with pytest.raises(MeshError, match="did not arrive"):
        await attacker.request(attacker.connection("two"), attacker.kernel())
    await attacker.request(attacker.connection("two"), attacker.kernel(), files=[attacker.network])
    for name in ("one", "two"):
        await attacker.close(attacker.connection(name))


async def test_a_request_cannot_pin_more_than_a_few_namespaces(mesh, attacker):
    preferences = [attacker.kernel(inode_url=f"inode://4/{number}") for number in range(9)]
    with pytest.raises(InvalidRequest, match="names 9 namespaces; the limit 'namespaces' is 8"):
        await attacker.request(attacker.connection("many"), *preferences)


# --- files that are no namespaces, and namespaces of others


def _fifo(folder):
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


def _regular(folder):
    (folder / "file").touch()
    return str(folder / "file")


FILES = {
    "a FIFO": _fifo,
    "a regular file": _regular,
    "a directory": str,
    "a device": lambda _: "/dev/zero",
    "not a network namespace": lambda _: "/proc/self/ns/mnt",
}


@pytest.mark.parametrize("kind", FILES)
async def test_what_is_no_network_namespace_is_refused_at_once(
    mesh, bystander, attacker, tmp_path, anything_is_sent, kind
):
    path = FILES[kind](tmp_path)
    watching = bystander.watching() if kind == "a FIFO" else contextlib.nullcontext()
    async with watching:
        for component in ("nsmgr", "forwarder"):
            began = time.monotonic()
            with pytest.raises(MeshError, match=kind):
                await attacker.request(
                    attacker.connection("no-namespace"),
                    attacker.kernel(inode_url=inode_url_of(path)),
                    files=[path],
                    url=mesh.urls[component],
                )
            assert time.monotonic() - began < 1.5


async def test_the_nodes_own_namespace_is_never_taken(mesh, attacker):
    node = f"/proc/{mesh.pids['forwarder']}/ns/net"
    before = interfaces(node)
    with pytest.raises(MeshError, match="node's own network namespace; NSM_NODE_NAMESPACE=true"):
        await attacker.request(attacker.connection("node"), attacker.kernel(inode_url=inode_url_of(node)), files=[node])
    assert interfaces(node) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("component", ["nsmgr", "forwarder"])
def test_a_namespace_is_not_taken_from_somebody_who_is_not_entitled_to_it(mesh, tmp_path, component):
    """From root it is, who could do there what the forwarder does."""
    file, place = tmp_path / "authority.pem", parse_address(mesh.urls[component]).path
    file.write_bytes(authority_pem(mesh.authority))
    folder = Path(place).parent
    before, before_folder = os.stat(place).st_mode, os.stat(folder).st_mode
    words = [Path(place).name, str(file), "node-1/attacker", mesh.networks["victim"], mesh.authority.trust_domain]
    run = [sys.executable, "-m", "tests.hostile.gives_a_namespace", *words]
    os.chmod(place, stat.S_IMODE(before) | 0o006)
    os.chmod(folder, stat.S_IMODE(before_folder) | 0o001)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    try:
        told = [
            subprocess.run(
                [*run, *more],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            for more in ((), ("as-root",))
        ]
    finally:
        os.chmod(place, stat.S_IMODE(before))
        os.chmod(folder, stat.S_IMODE(before_folder))
    refused, taken = told
    assert "is neither that of the process that passed it" in refused.stdout, refused
    assert "uid 65534" in refused.stdout
    assert taken.stdout.strip() == "taken" or component == "forwarder", taken


# --- descriptors before anybody is known


def give_away(sock, data, sent):
    """Send the descriptor of a socket, and close it here: the last `close` is up to who got it."""
    try:
        send_files(sock, data, [sent.fileno()])
    except OSError:  # refused: then it is up to us
        sent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    sent.close()


def lingering(listener):
    """A TCP socket whose last `close` takes a minute: its data is never read."""
    sock = socket.create_connection(listener.getsockname())
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    with contextlib.suppress(BlockingIOError):
        while sock.send(bytes(1 << 16)):
            pass
    return sock


@pytest.fixture
def deaf():
    """Somebody who accepts nothing and reads nothing."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener


@pytest.mark.parametrize("component", ["nsmgr", "forwarder", "endpoint", "identity"])
async def test_a_socket_that_lingers_freezes_nobody(mesh, bystander, attacker, deaf, component):
    watching = bystander.watching() if component in {"nsmgr", "forwarder"} else contextlib.nullcontext()
    async with watching:
        for data in (b"x", b"x" * 100):
            with attacker.socket(mesh.urls[component]) as sock:
                give_away(sock, data, lingering(deaf))
        await asyncio.sleep(0.1)
        for url in (mesh.urls["nsmgr"], mesh.urls["forwarder"], mesh.urls["endpoint"]):
            assert await check_health(attacker.pool, url, timeout=2)
        async with asyncio.timeout(2), identity_from(mesh.urls["identity"], token_lifetime=60) as identity:
            assert identity.spiffe_id == attacker.spiffe_id


async def test_a_socket_that_lingers_and_is_not_read_before_the_end_freezes_nobody(mesh, attacker, deaf):
    """Behind bytes that end the connection: the kernel would close it in the place of who did not read it."""
    for component in ("nsmgr", "forwarder", "identity"):
        with attacker.socket(mesh.urls[component]) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
            for _ in range(3):
                give_away(sock, b"x", lingering(deaf))
    for url in (mesh.urls["nsmgr"], mesh.urls["forwarder"]):
        assert await check_health(attacker.pool, url, timeout=2)


@pytest.mark.parametrize("component", ["nsmgr", "forwarder"])
async def test_strangers_cannot_fill_the_table_of_descriptors(mesh, attacker, component):
    before, connections = mesh.descriptors(component), []
    files = [os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)]
    for number in range(5):
        path = f"/tmp/nsm-{os.getpid()}-{number}"
        os.mknod(path, stat.S_IFSOCK | 0o600)
        files.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        os.unlink(path)
    try:
        for _ in range(60):
            sock = attacker.socket(mesh.urls[component])
            connections.append(sock)
            with contextlib.suppress(OSError):
                send_files(sock, b"x", files[:4])
                send_files(sock, b"x", [files[number % len(files)] for number in range(200)])
        assert until(lambda: mesh.descriptors(component) - before <= 60 * 5, 1)
        assert await check_health(attacker.pool, mesh.urls[component], timeout=2)
    finally:
        for sock in connections:
            sock.close()
        for file in files:
            os.close(file)
    assert until(lambda: mesh.descriptors(component) <= before + 2)


async def test_a_workload_cannot_fill_the_table_either(mesh, attacker, tmp_path):
    """Descriptors that no message names wait for one: few, if many connections have some."""
    before, padding = mesh.descriptors("nsmgr"), HealthCheckRequest(service="x" * 400)
    files = [str(tmp_path / f"{number}") for number in range(250)]
    for file in files:
        os.mknod(file, stat.S_IFSOCK | 0o600)
    async with AsyncExitStack() as stack:
        for _ in range(10):
            one = await stack.enter_async_context(Attacker(mesh))
            with pytest.raises(MeshError):
                await one.pool.channel(mesh.urls["nsmgr"]).unary("/t/None", padding, Connection, files=files)
        assert mesh.descriptors("nsmgr") - before < 5 * 256 + 10 * 17
    assert until(lambda: mesh.descriptors("nsmgr") <= before + 2)


async def test_a_workload_that_sends_what_nobody_takes_is_hung_up_on(mesh, attacker, anything_is_sent):
    before, padding = mesh.descriptors("nsmgr"), HealthCheckRequest(service="x" * 2000)
    with pytest.raises(Unavailable):
        await attacker.pool.channel(mesh.urls["nsmgr"]).unary("/t/None", padding, Connection, files=["/dev/null"] * 300)
    assert until(lambda: mesh.descriptors("nsmgr") <= before + 2)


async def test_what_a_stranger_sent_is_closed_with_its_connection(mesh, attacker):
    before = mesh.descriptors("nsmgr")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    for _ in range(10):
        with attacker.socket(mesh.urls["nsmgr"]) as sock:
            send_files(sock, b"not TLS at all", [namespace])
    os.close(namespace)
    assert until(lambda: mesh.descriptors("nsmgr") <= before)


async def test_the_issuer_takes_no_descriptors(mesh, attacker):
    before = mesh.descriptors("identity") if "identity" in mesh.pids else None
    with attacker.socket(mesh.urls["identity"]) as sock, open("/dev/null", "rb") as file:
        with contextlib.suppress(OSError):  # the kernel refuses them there since Linux 6.16
            send_files(sock, b"PRI", [file.fileno()] * 100)
            assert sock.recv(1 << 16) == b""
    if before is not None:
        assert until(lambda: mesh.descriptors("identity") <= before)


class RawClient:
    """TLS and HTTP/2 by hand, as upstream's client writes them: descriptors ride on the bytes of the next write."""

    def __init__(self, identity, path):
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = identity.client_context()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(10)
        self._sock.connect(path)

    def request(self, headers, body, files):
        """Handshake and request; the client's last flight and the request are written with nothing between them."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                self._incoming.write(self._sock.recv(1 << 16))
        h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
        h2.initiate_connection()
        h2.send_headers(1, headers)
        h2.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        last_flight = self._outgoing.read()
        self._tls.write(h2.data_to_send())
        data = self._outgoing.read()
        self._sock.sendall(last_flight)
        for number, file in enumerate(files):
            send_files(self._sock, data[number : number + 1], [file])
        self._sock.sendall(data[len(files) :])
        return self._status(h2)

    def _status(self, h2):
        while True:
            self._incoming.write(self._sock.recv(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    for event in h2.receive_data(self._tls.read(1 << 16)):
                        if isinstance(event, (TrailersReceived,)):
                            return dict(event.headers)
                        assert not isinstance(event, StreamEnded)

    def close(self):
        self._sock.close()


async def test_descriptors_that_come_with_the_first_request_are_there_when_it_is_answered(mesh, attacker):
    """A TLS 1.3 client sends its first request before the server has verified it, and upstream's does."""
    url, token = mesh.urls["nsmgr"], await attacker.own_token(mesh.urls["nsmgr"])
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", REQUEST),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        (TOKEN, token.token),
        (TOKEN_EXPIRES, token.expires.to_rfc3339()),
    ]
    for number in range(10):
        asked = attacker.connection(f"race-{number}")
        preferences = [attacker.kernel() for _ in range(6)]  # more descriptors than one may send before it is known
        body = codec.encode(NetworkServiceRequest(connection=asked, mechanism_preferences=preferences))
        files = [os.open(attacker.network, os.O_PATH | os.O_CLOEXEC) for _ in preferences]
        client = RawClient(attacker.identity, parse_address(url).path)
        try:
            trailers = await asyncio.to_thread(client.request, headers, body, files)
            assert trailers["grpc-status"] == "0", trailers
        finally:
            client.close()
            for file in files:
                os.close(file)
        await attacker.close(asked)


def test_what_takes_long_to_close_is_closed_elsewhere(deaf):
    """Also if many do."""
    from nsm.chains.transport import disposal

    began = time.monotonic()
    disposal.dispose([lingering(deaf).detach() for _ in range(4)])
    assert time.monotonic() - began < 0.5
    busy = "closes what peers sent"
    assert until(lambda: not any(thread.name == busy for thread in threading.enumerate()))
