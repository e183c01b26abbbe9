"""Questions and answers on real sockets, on loopback."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from structlog.testing import capture_logs

from nsm.apis.connectioncontext import DnsConfig
from nsm.services.dns import exchange as exchange_module
from nsm.services.dns import resolv_conf, resolver
from nsm.services.dns.exchange import exchange
from nsm.services.dns.query import as_answer_to, failure
from nsm.services.dns.resolver import LocalResolver
from nsm.services.dns.server import listening


@pytest.fixture(autouse=True)
def a_file_of_ours(monkeypatch):
    monkeypatch.setattr(resolv_conf, "_is_of_others", lambda _: False)


def question(name, kind="A", **options):
    return dns.message.make_query(name, kind, **options)


def texts(answer):
    return [record.to_text() for rrset in answer.answer for record in rrset]


async def address(query):
    answer = failure(query.message, dns.rcode.NOERROR)
    answer.answer = [dns.rrset.from_text(query.question.name, 60, "IN", "A", "192.0.2.1")]
    return answer


async def long(query):
    answer = failure(query.message, dns.rcode.NOERROR)
    answer.answer = [dns.rrset.from_text(query.question.name, 60, "IN", "TXT", *(f"{'x' * 200}{n}" for n in range(30)))]
    return answer


async def test_a_question_and_its_answer_by_datagram_and_by_stream():
    async with listening("127.0.0.1", 0, address) as port:
        message = question("a.test")
        assert texts(await exchange(message, "127.0.0.1", port)) == ["192.0.2.1"]
        wire = message.to_wire()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):  # more than one question a stream
            writer.write(struct.pack("!H", len(wire)) + wire)
            data = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
            assert texts(dns.message.from_wire(data)) == ["192.0.2.1"]
        writer.close()


async def test_a_port_that_is_free_for_datagrams_only_is_not_taken(monkeypatch):
    """But where it was asked for, it is said."""
    held, start_server = [], asyncio.start_server

    async def somebody_is_faster(accept, host, port):
        if len(held) < 3:
            held.append(socket.create_server((host, port)))
        return await start_server(accept, host, port)

    monkeypatch.setattr(asyncio, "start_server", somebody_is_faster)
    with contextlib.ExitStack() as stack:
        async with listening("127.0.0.1", 0, address) as port:
            for sock in held:
                stack.enter_context(sock)
            assert len(held) == 3
            assert texts(await exchange(question("a.test"), "127.0.0.1", port)) == ["192.0.2.1"]
        taken = held[0].getsockname()[1]
        with pytest.raises(OSError, match="already in use"):
            async with listening("127.0.0.1", taken, address):
                pass


async def test_an_address_of_ipv6():
    async with listening("::1", 0, address) as port:
        assert texts(await exchange(question("a.test"), "::1", port)) == ["192.0.2.1"]


async def test_an_answer_that_does_not_fit_comes_by_stream():
    async with listening("127.0.0.1", 0, long) as port:
        assert len(texts(await exchange(question("a.test", "TXT"), "127.0.0.1", port))) == 30


async def test_a_server_that_answers_streams_only_is_asked_by_stream(monkeypatch):
    monkeypatch.setattr(exchange_module, "TRIES", (0.01, 0.01))

    async def serve(reader, writer):
        data = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
        wire = dns.message.make_response(dns.message.from_wire(data)).to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", port))
        assert (await exchange(question("a"), "127.0.0.1", port)).rcode() == dns.rcode.NOERROR
    assert (await exchange(question("a"), "127.0.0.1", port)).rcode() == dns.rcode.NOERROR  # nobody listens: at once
    server.close()


async def test_a_datagram_that_is_lost_is_sent_again(monkeypatch):
    monkeypatch.setattr(exchange_module, "TRIES", (0.05, 5.0))
    with server_of_datagrams([None, dns.message.make_response]) as port:
        assert (await exchange(question("a"), "127.0.0.1", port)).rcode() == dns.rcode.NOERROR


async def test_what_is_no_answer_to_the_question_is_not_heard():
    """Another id, another question, nonsense, a question."""

    def false_ones(message):
        other_id = dns.message.make_response(question("a", id=(message.id + 1) % 65536))
        other_name = dns.message.make_response(question("b", id=message.id))
        answer = dns.message.make_response(message)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return [other_id.to_wire(), other_name.to_wire(), b"nonsense", message.to_wire(), answer.to_wire()]

    with server_of_datagrams([false_ones]) as port:
        assert (await exchange(question("a"), "127.0.0.1", port)).rcode() == dns.rcode.NXDOMAIN


async def test_where_nobody_listens_is_an_error_at_once():
    with pytest.raises(OSError):
        async with asyncio.timeout(2):
            await exchange(question("a"), "127.0.0.1", free_port())


@contextlib.contextmanager
def server_of_datagrams(replies):
    """Answers one datagram after the other with what each of `replies` makes of it; None: not at all."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    left = list(replies)

    def answer():
        data, peer = sock.recvfrom(4096)
        if (make := left.pop(0)) is not None:
            made = make(dns.message.from_wire(data))
            for wire in made if isinstance(made, list) else [made.to_wire()]:
                sock.sendto(wire, peer)

    loop.add_reader(sock, answer)
    try:
        yield sock.getsockname()[1]
    finally:
        loop.remove_reader(sock)
        sock.close()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# --- the resolver of a workload


USUAL = b"nameserver 127.0.0.9\nsearch before.test\noptions ndots:2\n"
ONE = [DnsConfig(dns_server_ips=["10.0.0.1"], search_domains=["one.test"])]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_bytes(USUAL)
    return path


@asynccontextmanager
async def resolver_at(file, port=53, host="127.0.0.1"):
    found = LocalResolver(host, port, path=str(file))
    try:
        yield found
    finally:
        await found.aclose()


@pytest.fixture
def served(monkeypatch):
    """In place of sockets on port 53, which may be taken: what was served, and where."""
    seen = []

    @asynccontextmanager
    async def serving(host, port, configs):
        if seen and isinstance(seen[0], OSError):
            raise seen.pop(0)
        seen.append(configs)
        try:
            yield port
        finally:
            seen.remove(configs)

    import nsm.services.dns.proxy

    monkeypatch.setattr(nsm.services.dns.proxy, "serving", serving)
    return seen


def told(logs, level="warning"):
    return [line for line in logs if line["log_level"] == level]


async def test_the_file_is_changed_from_the_first_connection_that_brings_dns_to_the_last(file, served):
    async with resolver_at(file) as local:
        assert (file.read_bytes(), served) == (USUAL, [])
        await local.use("a", ONE)
        changed = file.read_bytes()
        assert b"\nnameserver 127.0.0.1\nsearch before.test\noptions ndots:2\n" in changed
        (configs,) = served
        assert configs == {"": [DnsConfig(dns_server_ips=["127.0.0.9"])], "a": [DnsConfig(dns_server_ips=["10.0.0.1"])]}
        await local.use("b", ONE)
        await local.forget("a")
        assert file.read_bytes() == changed
        await local.forget("b")
        assert (file.read_bytes(), served) == (USUAL, [])
        await local.forget("b")
        await local.use("c", ONE)
        assert file.read_bytes() == changed
        await local.use("c", [])
        assert file.read_bytes() == USUAL


async def test_domains_come_and_go_with_the_wires_in_the_wires_order(file, served):
    """Whichever of them came up first."""

    def searched():
        return resolv_conf.read_original(file.read_bytes()).search_domains

    async with resolver_at(file) as local:
        for number in (10, 2, 0):
            await local.use(f"nsc-{number}", [DnsConfig(search_domains=[f"d{number}.test"])])
        assert searched() == ("before.test", "d0.test", "d2.test", "d10.test")
        await local.forget("nsc-2")
        assert searched() == ("before.test", "d0.test", "d10.test")
        await local.use("nsc-0", [DnsConfig(search_domains=["new.test"])])
        assert searched() == ("before.test", "new.test", "d10.test")
    assert file.read_bytes() == USUAL


async def test_a_client_that_ends_without_closing_restores_the_file(file, served):
    async with resolver_at(file) as local:
        await local.use("a", ONE)
    assert (file.read_bytes(), served) == (USUAL, [])


async def test_many_connections_at_once_start_one_server(file, served):
    async with resolver_at(file) as local:
        await asyncio.gather(*(local.use(str(n), ONE) for n in range(20)))
        assert len(served) == 1
        await asyncio.gather(*(local.forget(str(n)) for n in range(20)))
        assert (file.read_bytes(), served) == (USUAL, [])


async def test_an_address_that_is_taken_is_told_and_tried_again_and_the_wire_does_not_wait(file, served, monkeypatch):
    monkeypatch.setattr(resolver, "FIRST_PAUSE", 0.01)
    served.append(OSError(98, "Address already in use"))
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await local.use("a", ONE)
            assert file.read_bytes() == USUAL
            (warning,) = told(logs)
            assert warning["event"].startswith("the local DNS server cannot listen")
            assert (warning["address"], warning["error"]) == ("127.0.0.1:53", "Address already in use")
            assert 0.01 <= warning["again_in_s"] <= 0.012
            async with asyncio.timeout(5):
                while file.read_bytes() == USUAL:
                    await asyncio.sleep(0.005)
    assert file.read_bytes() == USUAL


async def test_pauses_between_tries_grow_to_a_limit(file, served, monkeypatch):
    monkeypatch.setattr(resolver, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(resolver, "LONGEST_PAUSE", 0.04)
    served.extend(OSError(98, "taken") for _ in range(4))
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await local.use("a", ONE)
            async with asyncio.timeout(5):
                while len(told(logs)) < 4:
                    await asyncio.sleep(0.001)
    for line, pause in zip(told(logs), [0.01, 0.02, 0.04, 0.04], strict=True):
        assert pause <= line["again_in_s"] <= 1.2 * pause


async def test_a_file_that_cannot_be_changed_is_a_warning_and_the_server_answers_all_the_same(file, served):
    holder = resolv_conf.ResolvConf(str(file))
    holder.change("127.0.0.8")
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await local.use("a", ONE)
            assert len(served) == 1
    (warning,) = told(logs)
    assert warning["event"] == "names of the mesh are not found, because resolv.conf is unchanged"
    assert "in use by another client" in warning["error"]
    holder.restore()
    assert file.read_bytes() == USUAL


async def test_a_file_that_somebody_else_wrote_is_told_once_and_left(file, served):
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await local.use("a", ONE)
            file.write_bytes(b"nameserver 192.0.2.9\n")
            for _ in range(3):
                await local.use("a", ONE)
    assert [line["event"] for line in told(logs)] == [
        "another process overwrote it, so names of the mesh are no longer found"
    ]
    assert file.read_bytes() == b"nameserver 192.0.2.9\n"


async def test_no_file_is_made_where_there_is_none(file, served):
    file.unlink()
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await local.use("a", ONE)
            assert len(served) == 1
    assert not file.exists()
    assert told(logs) == []


async def test_what_a_crash_left_is_restored_when_the_next_client_starts(file, served):
    left = resolv_conf.ResolvConf(str(file))
    left.change("127.0.0.1")
    os.close(left._file)  # as a process that is killed does
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            local.recover()
            assert file.read_bytes() == USUAL
    assert told(logs)[0]["event"] == "restored the file: a client that ended without cleaning up had changed it"


async def test_a_client_that_is_stopped_while_the_server_starts_leaves_nothing(file, monkeypatch):
    @asynccontextmanager
    async def slow(*_):
        await asyncio.sleep(60)
        yield 53

    import nsm.services.dns.proxy

    monkeypatch.setattr(nsm.services.dns.proxy, "serving", slow)
    async with resolver_at(file) as local:
        asking = asyncio.ensure_future(local.use("a", ONE))
        await asyncio.sleep(0.01)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(local.forget("a"), 2)
    assert file.read_bytes() == USUAL


async def test_a_client_that_is_cancelled_while_the_server_stops_can_start_it_again(file, monkeypatch):
    @asynccontextmanager
    async def stops_slowly(*_):
        try:
            yield 53
        finally:
            await asyncio.sleep(0.05)

    import nsm.services.dns.proxy

    monkeypatch.setattr(nsm.services.dns.proxy, "serving", stops_slowly)
    async with resolver_at(file) as local:
        await local.use("a", ONE)
        stopping = asyncio.ensure_future(local.use("a", []))
        await asyncio.sleep(0.01)
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
        with capture_logs() as logs:
            await asyncio.wait_for(local.use("a", ONE), 2)
        assert told(logs) == []
        await asyncio.sleep(0.1)
        assert file.read_bytes() != USUAL
    assert file.read_bytes() == USUAL


async def test_with_another_port_than_53_names_are_answered_and_the_file_is_left(file, monkeypatch):
    """From end to end, with a server that a connection brings."""

    async def known(query):
        if query.question.name.to_text() == "web.one.test.":
            return as_answer_to(query.message, await address(query))
        return failure(query.message, dns.rcode.NXDOMAIN)

    port = free_port()
    async with listening("127.0.0.2", 0, known) as server_port:
        monkeypatch.setattr(exchange_module.exchange, "__defaults__", (server_port,))
        async with resolver_at(file, port) as local:
            await local.use("a", [DnsConfig(dns_server_ips=["127.0.0.2"], search_domains=["one.test"])])
            assert file.read_bytes() == USUAL
            answer = await exchange(question("web"), "127.0.0.1", port)
            assert texts(answer) == ["web.one.test.", "192.0.2.1"]
    with pytest.raises(OSError):
        await exchange(question("web"), "127.0.0.1", port)


async def test_no_socket_and_no_task_is_left(file):
    async with resolver_at(file, free_port()) as local:
        await local.use("a", ONE)
        await local.forget("a")
        await asyncio.sleep(0)
        before, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for _ in range(5):
            await local.use("a", ONE)
            await local.forget("a")
        await asyncio.sleep(0)
        assert (len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())) == (before, tasks)


def test_dnspython_is_imported_by_those_who_need_it_only():
    script = "import nsm.services.nsc.main, sys; print([m for m in sys.modules if m.split('.')[0] == 'dns'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_without_dnspython_the_wire_works_and_what_to_install_is_said(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "nsm.services.dns.proxy", None)
    with capture_logs() as logs:
        async with resolver_at(file) as local:
            await asyncio.wait_for(local.use("a", ONE), 2)
    assert "nsm-services[dns]" in told(logs)[0]["event"]
    assert file.read_bytes() == USUAL
