"""Calls over real sockets: TLS, descriptors beside the bytes, deadlines, what peers may do wrong."""

import asyncio
import os
import socket
import stat
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.health import HealthCheckRequest, HealthCheckResponse
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Empty
from nsm.chains.core import (
    Begin,
    Call,
    Chain,
    Conflict,
    Element,
    InvalidRequest,
    Limits,
    MeshError,
    NotFound,
    Peer,
    Refused,
    TimedOut,
    Unavailable,
    Unsupported,
    file_key,
    inode_url,
)
from nsm.chains.elements.authorize import AuthorizeClient
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import (
    Health,
    Pool,
    RemoteNetworkService,
    SocketAccess,
    Streaming,
    Unary,
    check_health,
    inbox,
    network_service,
    parse_address,
    publishable,
    serve,
)

AUTHORITY = Authority.create("test.mesh")
NAMESPACE = "/proc/self/ns/net"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def mesh(tmp_path, handler, url=None, methods=None):
    """A server with `handler` and a pool of another identity."""
    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    all_methods = {**(network_service(handler) if handler else {}), **Health().methods(), **(methods or {})}
    async with serve([url or f"unix://{tmp_path}/s.sock"], all_methods, server, name="server") as urls:
        async with Pool(client, dial_timeout=2) as pool:
            yield urls[0], pool


class Echo:
    """Answers with the connection that it was sent."""

    def __init__(self):
        self.peers, self.closed = [], []

    async def request(self, call):
        self.peers.append(call.peer.spiffe_id)
        return call.connection

    async def close(self, call):
        self.closed.append(call.connection.id)


def request(connection_id="c", target=None, **fields):
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, **fields)), target=target)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_call_crosses_with_both_identities_verified(tmp_path, kind):
    echo, url = Echo(), f"unix://{tmp_path}/s.sock" if kind == "unix" else "tcp://127.0.0.1:0"
    async with mesh(tmp_path, echo, url) as (target, pool):
        chain = Chain([Begin()], RemoteNetworkService(pool))
        call = request(target=target, labels={"a": "b" * 40_000})
        assert (await chain.request(call)).labels["a"] == "b" * 40_000
        assert call.server_peer.spiffe_id == "spiffe://test.mesh/server"
        assert echo.peers == ["spiffe://test.mesh/client"]
        assert await check_health(pool, target)
        assert len(pool) == 1


async def test_a_socket_is_for_owner_and_group_by_default(tmp_path):
    async with mesh(tmp_path, Echo()):
        assert os.stat(tmp_path / "s.sock").st_mode & 0o777 == 0o660
    assert not (tmp_path / "s.sock").exists()


async def test_a_socket_s_mode_can_be_chosen_and_its_group_must_exist(tmp_path):
    identity = identity_of(AUTHORITY, "server")
    url = f"unix://{tmp_path}/deep/er.sock"
    async with serve([url], {}, identity, name="s", access=SocketAccess(mode=0o600)):
        assert os.stat(tmp_path / "deep/er.sock").st_mode & 0o777 == 0o600
    with pytest.raises(InvalidRequest, match="no group 'nobodies'"):
        async with serve([url], {}, identity, name="s", access=SocketAccess(group="nobodies")):
            pass
    assert not (tmp_path / "deep/er.sock").exists()


async def test_two_servers_do_not_share_a_socket_but_a_leftover_is_replaced(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s.sock"))
    left.close()
    async with mesh(tmp_path, Echo()) as (target, pool):
        assert await check_health(pool, target)
        with pytest.raises(Conflict, match="listens there already"):
            async with mesh(tmp_path, Echo()):
                pass
    (tmp_path / "s.sock").write_text("a file")
    with pytest.raises(Conflict, match="not a socket"):
        async with mesh(tmp_path, Echo()):
            pass


async def test_an_error_arrives_with_its_kind_and_hop(tmp_path):
    class Fails(Echo):
        async def request(self, call):
            raise NotFound("no endpoint — ünïcode %")

    async with mesh(tmp_path, Fails()) as (target, pool):
        with pytest.raises(NotFound, match="spiffe://test.mesh/server answered: server: no endpoint — ünïcode %"):
            await Chain([Begin()], RemoteNetworkService(pool)).request(request(target=target))


async def test_a_defect_is_logged_and_told_without_its_details(tmp_path, capsys):
    class Broken(Echo):
        async def request(self, call):
            raise ZeroDivisionError("secret")

    async with mesh(tmp_path, Broken()) as (target, pool):
        with pytest.raises(Exception, match="unexpected ZeroDivisionError") as raised:
            await Chain([Begin()], RemoteNetworkService(pool)).request(request(target=target))
        assert "secret" not in str(raised.value)
    assert "secret" in capsys.readouterr().out


async def test_an_unknown_method_and_a_malformed_message_are_refused(tmp_path):
    async with mesh(tmp_path, Echo()) as (target, pool):
        channel = pool.channel(target)
        with pytest.raises(Unsupported, match="no method"):
            await channel.unary("/no.Such/Method", Empty(), Empty)
        garbage = Connection()
        garbage._unknown_fields = b"\xff\xff\xff"
        with pytest.raises(InvalidRequest, match="NetworkServiceRequest"):
            await channel.unary("/networkservice.NetworkService/Request", garbage, Connection)


async def test_the_deadline_crosses_and_ends_the_call_on_both_sides(tmp_path):
    seen, ended = [], asyncio.Event()

    class Slow(Echo):
        async def request(self, call):
            seen.append(call.remaining())
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

    async with mesh(tmp_path, Slow()) as (target, pool):
        call = request(target=target)
        call.deadline = asyncio.get_running_loop().time() + 0.3
        with pytest.raises(TimedOut):
            await Chain([Begin()], RemoteNetworkService(pool)).request(call)
        async with asyncio.timeout(1):
            await ended.wait()
        assert 0 < seen[0] <= 0.3


async def test_a_caller_who_cannot_wait_for_the_next_attempt_hears_at_once_why_the_last_one_failed(tmp_path):
    now = asyncio.get_running_loop().time
    async with Pool(identity_of(AUTHORITY, "client")) as pool:
        target = f"unix://{tmp_path}/nobody.sock"
        for _ in range(5):  # each pause is twice the one before
            with pytest.raises(Unavailable):
                await pool.channel(target).peer()
        for method in (pool.channel(target).peer, partial(requested_by, pool, target)):
            with pytest.raises(Unavailable, match=f"cannot reach {target}: .*No such file"):
                await method(deadline=now() + 0.3)


async def test_a_caller_hears_of_a_failed_attempt_that_others_made(tmp_path):
    """Each would make his own otherwise, one after the other, with a pause before it that doubles."""

    async def without_end(channel):
        while True:
            with suppress(Unavailable):
                await channel.peer()

    async with Pool(identity_of(AUTHORITY, "client")) as pool:
        channel = pool.channel(f"unix://{tmp_path}/nobody.sock")
        others = [asyncio.ensure_future(without_end(channel)) for _ in range(2)]
        while channel._retry_at - channel._loop.time() < 1.5:
            await asyncio.sleep(0.01)
        deadline = asyncio.get_running_loop().time() + 4
        with pytest.raises(Unavailable, match="cannot reach .*No such file"):
            await channel.peer(deadline=deadline)
        for other in others:
            other.cancel()
        await asyncio.wait(others)


async def fail_often(pool, target, times=6):
    """Each pause before the next attempt is twice the one before."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            await pool.channel(target).peer()


async def test_a_request_that_has_others_to_try_does_not_wait_for_a_component_that_is_away(tmp_path):
    """A client took seconds to heal: its request waited for the next attempt at an endpoint that had ended."""
    async with Pool(identity_of(AUTHORITY, "client")) as pool:
        target = f"unix://{tmp_path}/nobody.sock"
        await fail_often(pool, target)
        asked = request(target=target)
        asked.has_others = True
        async with asyncio.timeout(0.5):
            with pytest.raises(Unavailable, match=r"cannot reach \S+: .*No such file.* \(transport\)"):
                await Chain([Begin()], RemoteNetworkService(pool)).request(asked)


async def test_the_socket_of_a_process_that_has_ended_is_not_waited_for(tmp_path):
    """It arrived as a descriptor, and the next process of that name has another one."""
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(f"{tmp_path}/ended.sock")
    descriptor = os.open(tmp_path / "ended.sock", os.O_PATH)
    try:
        async with Pool(identity_of(AUTHORITY, "client")) as pool:
            target = f"unix:///proc/{os.getpid()}/fd/{descriptor}"
            async with asyncio.timeout(0.5):
                await fail_often(pool, target, times=20)
                with pytest.raises(Unavailable, match="Connection refused"):
                    await requested_by(pool, target, deadline=None)
    finally:
        os.close(descriptor)


async def test_whether_a_process_listens_is_found_out_without_a_call(tmp_path, capsys):
    url = f"unix://{tmp_path}/s.sock"
    async with Pool(identity_of(AUTHORITY, "client")) as pool:
        assert not await pool.listens(url)
        async with mesh(tmp_path, None) as (url, _):
            assert await pool.listens(url)
            descriptor = os.open(tmp_path / "s.sock", os.O_PATH)
            received = f"unix:///proc/{os.getpid()}/fd/{descriptor}"
            assert await pool.listens(received)
            await asyncio.sleep(0.05)
        assert not await pool.listens(received)
        os.close(descriptor)
    assert capsys.readouterr().out == ""  # the process that listens takes it for a probe


async def requested_by(pool, target, *, deadline):
    call = request(target=target)
    call.deadline = deadline
    await Chain([Begin()], RemoteNetworkService(pool)).request(call)


async def test_a_cancelled_call_is_cancelled_at_the_server_and_closed_there(tmp_path):
    """The server may have taken it although the answer never came."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    class Slow(Echo):
        async def request(self, call):
            began.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    slow = Slow()
    async with mesh(tmp_path, slow) as (target, pool):
        task = asyncio.ensure_future(Chain([Begin()], RemoteNetworkService(pool)).request(request(target=target)))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled.is_set()
        assert slow.closed == ["c"]


async def test_a_server_that_goes_away_in_the_middle_is_unavailable_and_comes_back(tmp_path):
    class Slow(Echo):
        async def request(self, call):
            if call.connection.id == "slow":
                await asyncio.sleep(30)
            return call.connection

    client = identity_of(AUTHORITY, "client")
    async with Pool(client, dial_timeout=2) as pool:
        chain = Chain([Begin()], RemoteNetworkService(pool))
        server, methods = identity_of(AUTHORITY, "server"), network_service(Slow())
        url = f"unix://{tmp_path}/s.sock"
        from nsm.chains.transport.server import Server

        first = Server(methods, server, "first")
        await first.listen(parse_address(url), SocketAccess())
        task = asyncio.ensure_future(chain.request(request("slow", url)))
        while not any(connection.calls() for connection in first.connections):
            await asyncio.sleep(0.01)
        await first.stop(0)
        with pytest.raises(Unavailable):
            await task
        with pytest.raises(Unavailable, match=r"cannot reach unix://.*No such file"):
            await chain.request(request("c", url))
        async with serve([url], methods, server, name="second"):
            assert (await chain.request(request("c", url))).id == "c"


async def test_calls_that_run_when_the_server_stops_may_finish(tmp_path):
    began = asyncio.Event()

    class Slow(Echo):
        async def request(self, call):
            began.set()
            await asyncio.sleep(0.3)
            return call.connection

    client = identity_of(AUTHORITY, "client")
    async with Pool(client) as pool:
        async with mesh(tmp_path, Slow()) as (target, _):
            call = Chain([Begin()], RemoteNetworkService(pool)).request(request(target=target))
            task = asyncio.ensure_future(call)
            await began.wait()
        assert (await task).id == "c"


async def test_a_server_that_stops_does_not_wait_for_watches(tmp_path):
    """They have no end of their own: a component that somebody watches would take its whole grace to stop."""

    async def watch(message, incoming):
        yield [HealthCheckResponse(status=1)]
        await asyncio.Event().wait()

    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    methods = {"/t/Watch": Streaming(HealthCheckRequest, watch)}
    async with Pool(client) as pool:
        async with serve([f"unix://{tmp_path}/s.sock"], methods, server, name="server") as urls:
            answers = pool.channel(urls[0]).stream("/t/Watch", HealthCheckRequest(), HealthCheckResponse)
            await anext(answers)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1
        with pytest.raises(Unavailable):
            await anext(answers)


async def test_after_a_rotation_new_calls_use_a_new_connection_and_old_calls_go_on(tmp_path):
    """A token is signed by the key that the peer saw when the connection was made."""
    release = asyncio.Event()
    keys = []

    class Notes(Echo):
        async def request(self, call):
            keys.append(call.peer.certificate_der)
            if call.connection.id == "old":
                await release.wait()
            return call.connection

        async def close(self, call):
            pass

    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    async with serve([f"unix://{tmp_path}/s.sock"], network_service(Notes()), server, name="s") as urls:
        async with Pool(client) as pool:
            chain = Chain([Begin()], RemoteNetworkService(pool))
            old = asyncio.ensure_future(chain.request(request("old", urls[0])))
            while not keys:
                await asyncio.sleep(0.01)
            client.update(AUTHORITY.issue("spiffe://test.mesh/client"), client.bundles)
            await chain.request(request("new", urls[0]))
            assert len(pool) == 2
            release.set()
            await old
            await chain.request(request("newer", urls[0]))
            assert keys[0] != keys[1] == keys[2]
            assert len(pool) == 1


class NewestKey(Echo):
    """A manager that signs with its newest key also on old connections, as upstream's does."""

    def __init__(self, identity):
        super().__init__()
        self._identity = identity

    async def request(self, call):
        audience = Peer(call.peer.spiffe_id, call.peer.certificate_der)
        own = self._identity.token(audience)
        tokens = [call.token.token, own.token]
        call.connection.path = Path(path_segments=[PathSegment(token=token) for token in tokens])
        return call.connection


async def test_a_client_keeps_its_wire_when_the_manager_has_rotated_its_identity(tmp_path):
    """An answer that is signed with a key which the connection has not shown is checked over a new connection."""
    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    url = f"unix://{tmp_path}/s.sock"
    async with serve([url], network_service(NewestKey(server)), server, name="s"), Pool(client) as pool:
        chain = Chain([Begin(), AuthorizeClient()], RemoteNetworkService(pool))
        await chain.request(request("c", url))
        before = await pool.channel(url).peer()
        server.update(AUTHORITY.issue(server.spiffe_id), server.bundles)
        await asyncio.gather(*(chain.request(request(f"c-{number}", url)) for number in range(5)))
        after = pool.channel(url)
        await chain.request(request("c", url))
        assert pool.channel(url) is after
        assert (await after.peer()).certificate_der != before.certificate_der
        assert len(pool) == 1


async def test_an_answer_that_somebody_else_signed_is_refused_also_after_asking_again(tmp_path):
    server, other, client = (identity_of(AUTHORITY, name) for name in ("server", "server", "client"))
    url = f"unix://{tmp_path}/s.sock"
    async with serve([url], network_service(NewestKey(other)), server, name="s"), Pool(client) as pool:
        chain = Chain([Begin(), AuthorizeClient()], RemoteNetworkService(pool))
        with pytest.raises(Refused, match="next_token_signed"):
            await chain.request(request("c", url))


async def test_many_answers_of_a_stream_cross_in_batches(tmp_path):
    async def watch(message, incoming):
        yield [HealthCheckResponse(status=1)] * 500
        yield []
        yield [HealthCheckResponse(status=2)]

    methods = {"/t/Watch": Streaming(HealthCheckRequest, watch)}
    async with mesh(tmp_path, None, methods=methods) as (target, pool):
        batches = [b async for b in pool.channel(target).stream("/t/Watch", HealthCheckRequest(), HealthCheckResponse)]
        assert sum(len(batch) for batch in batches) == 501
        assert len(batches) < 20


async def test_a_stream_that_breaks_is_an_error_and_not_an_end(tmp_path):
    async def watch(message, incoming):
        yield [HealthCheckResponse(status=1)]
        raise NotFound("gone")

    methods = {"/t/Watch": Streaming(HealthCheckRequest, watch)}
    async with mesh(tmp_path, None, methods=methods) as (target, pool):
        seen = []
        with pytest.raises(NotFound, match="gone"):
            async for batch in pool.channel(target).stream("/t/Watch", HealthCheckRequest(), HealthCheckResponse):
                seen += batch
        assert len(seen) == 1


async def test_the_stubs_of_the_wire_api_work_on_a_channel(tmp_path):
    from nsm.apis.health import HealthStub

    async with mesh(tmp_path, None) as (target, pool):
        assert (await HealthStub(pool.channel(target)).check(HealthCheckRequest())).status == 1


# --- descriptors


class Resolves(Element):
    """The end of the server's chain: notes where each namespace can be opened, and answers with its own."""

    def __init__(self):
        self.paths = []

    async def request(self, call, rest):
        mechanism = call.connection.mechanism or call.request.mechanism_preferences[0]
        path = mechanism.parameters["inodeURL"].removeprefix("file://")
        self.paths.append(path)
        assert os.stat(path).st_ino == os.stat(NAMESPACE).st_ino
        call.connection.mechanism = Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{NAMESPACE}"})
        return await rest.request(call)


def wire(target, connection_id):
    preference = Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{NAMESPACE}"})
    return Call(
        NetworkServiceRequest(connection=Connection(id=connection_id), mechanism_preferences=[preference]),
        target=target,
    )


@asynccontextmanager
async def passing(tmp_path, resolves):
    server = Chain([Begin(), ReceiveDescriptors(), ReturnDescriptors(), resolves])
    async with mesh(tmp_path, server) as (target, pool):
        await check_health(pool, target)
        yield Chain([Begin(), ReceiveReturned(), SendDescriptors()], RemoteNetworkService(pool)), target


async def test_two_wires_at_once_share_a_channel_and_leave_no_descriptor(tmp_path):
    """Both name the same namespace; the one that ends first does not take it from the other."""
    resolves = Resolves()
    async with passing(tmp_path, resolves) as (chain, target):
        before = descriptors()
        first, second = wire(target, "a"), wire(target, "b")
        connections = await asyncio.gather(chain.request(first), chain.request(second))
        assert all(c.mechanism.parameters["inodeURL"].startswith("file:///proc/") for c in connections)
        assert descriptors() == before + 1  # the server keeps one, however many wires use it
        await chain.close(request("a"))
        assert os.stat(resolves.paths[1]).st_ino == os.stat(NAMESPACE).st_ino
        await chain.close(request("b"))
        assert descriptors() == before


async def test_a_refresh_sends_the_descriptor_again_and_uses_the_one_it_has(tmp_path):
    resolves = Resolves()
    async with passing(tmp_path, resolves) as (chain, target):
        before = descriptors()
        connection = await chain.request(wire(target, "a"))
        for _ in range(20):
            call = Call(NetworkServiceRequest(connection=connection), target=target)
            connection = await chain.request(call)
        assert descriptors() <= before + 2
        assert len(set(resolves.paths)) == 1
        await chain.close(request("a"))
        assert descriptors() == before


async def test_a_client_that_was_started_again_names_its_namespace_twice_and_sends_it_once(tmp_path):
    """As upstream's does: by the mechanism that a monitor told it, and by a preference of its own."""
    resolves = Resolves()
    async with (
        passing(tmp_path, resolves) as (chain, target),
        Pool(identity_of(AUTHORITY, "client"), dial_timeout=2) as pool,
    ):
        again = Chain([Begin(), SendDescriptors()], RemoteNetworkService(pool))
        await check_health(pool, target)
        before = descriptors()
        await chain.request(wire(target, "a"))
        call = wire(target, "a")
        call.connection.mechanism = Mechanism(type="KERNEL", parameters={"inodeURL": inode_url(NAMESPACE)})
        await again.request(call)
        assert len(set(resolves.paths)) == 1
        await again.close(request("a", target))
        assert descriptors() == before


async def test_a_descriptor_that_nobody_takes_is_closed_with_its_call(tmp_path):
    """A refused request must not leave its namespace open."""

    class Refuses(Element):
        async def request(self, call, rest):
            raise NotFound("nothing here")

    server = Chain([Begin(), Refuses(), ReceiveDescriptors()])
    async with mesh(tmp_path, server) as (target, pool):
        await check_health(pool, target)
        before = descriptors()
        chain = Chain([Begin(), SendDescriptors()], RemoteNetworkService(pool))
        for number in range(5):
            with pytest.raises(NotFound):
                await chain.request(wire(target, f"c{number}"))
        assert descriptors() == before


async def test_a_descriptor_that_does_not_come_is_an_error_after_a_bounded_wait(tmp_path, monkeypatch):
    from nsm.chains.elements import descriptors as element

    monkeypatch.setattr(element, "ARRIVAL_TIMEOUT", 0.1)
    server = Chain([Begin(), ReceiveDescriptors()])
    async with mesh(tmp_path, server) as (target, pool):
        named = Mechanism(type="KERNEL", parameters={"inodeURL": "inode://4/99999999"})
        call = Call(NetworkServiceRequest(connection=Connection(id="c", mechanism=named)), target=target)
        with pytest.raises(InvalidRequest, match=r"inode://4/99999999 did not arrive within 0.1 s"):
            await Chain([Begin()], RemoteNetworkService(pool)).request(call)


async def test_a_namespace_that_is_not_there_fails_before_anything_is_sent(tmp_path):
    async with passing(tmp_path, Resolves()) as (chain, target):
        call = wire(target, "a")
        call.request.mechanism_preferences[0].parameters["inodeURL"] = "file:///proc/0/ns/net"
        with pytest.raises(InvalidRequest, match="cannot pass /proc/0/ns/net"):
            await chain.request(call)


async def test_more_descriptors_than_fit_one_write_all_arrive_and_go(tmp_path):
    """Also when they are of different files, and none is taken."""
    files = []
    for number in range(150):
        path = tmp_path / f"socket-{number}"
        os.mknod(path, stat.S_IFSOCK | 0o600)
        files.append(str(path))

    async def count(message, incoming):
        keys = [file_key(inode_url(path)) for path in files]
        taken = [await incoming.inbox.take(*key, timeout=1) for key in keys]
        arrived = len(incoming.inbox)
        for use, key in zip(taken, keys, strict=True):
            use.release()
            incoming.inbox.settle(*key)
        return HealthCheckRequest(service=str(arrived))

    methods = {"/t/Count": Unary(HealthCheckRequest, count)}
    async with mesh(tmp_path, None, methods=methods) as (target, pool):
        await check_health(pool, target)
        before = descriptors()
        channel, padding = pool.channel(target), HealthCheckRequest(service="x" * 1000)
        answer, _ = await channel.unary("/t/Count", padding, HealthCheckRequest, files=files)
        assert answer.service == "150"
        assert descriptors() == before


# --- peers that do wrong


async def test_garbage_and_silence_do_not_disturb_others(tmp_path):
    async with mesh(tmp_path, Echo()) as (target, pool):
        before = descriptors()
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(500)):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "s.sock"))
                sock.sendall(data)
                await asyncio.sleep(0.05)
        assert await check_health(pool, target)
        await asyncio.sleep(0.1)
        assert descriptors() <= before + 2  # the good connection's two ends


async def test_descriptors_that_nobody_asked_for_end_with_their_connection(tmp_path):
    async with mesh(tmp_path, Echo()):
        await asyncio.sleep(0)
        before = descriptors()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "s.sock"))
            for _ in range(10):
                read, write = os.pipe()
                socket.send_fds(sock, [b"x"], [read, write])
                os.close(read)
                os.close(write)
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        assert descriptors() == before


async def test_a_manager_has_more_connections_than_a_client(tmp_path):
    """Upstream's makes one for each wire of its clients. Beyond its share it is hung up on, as others are."""
    target, limits = f"unix://{tmp_path}/s.sock", Limits(connections=1, intermediary_connections=3)

    async def how_many(role):
        async with AsyncExitStack() as stack:
            for number in range(5):
                pool = await stack.enter_async_context(Pool(identity_of(AUTHORITY, role), dial_timeout=1))
                try:
                    await check_health(pool, target, timeout=1)
                except MeshError:
                    return number
        return 5

    server, is_manager = identity_of(AUTHORITY, "server"), "spiffe://test.mesh/nsmgr".__eq__
    async with serve([target], Health().methods(), server, name="s", limits=limits, is_intermediary=is_manager):
        assert [await how_many("client"), await how_many("nsmgr")] == [1, 3]


async def test_a_peer_of_an_unknown_trust_domain_is_refused(tmp_path):
    stranger = identity_of(Authority.create("elsewhere.mesh"), "client", AUTHORITY)
    async with mesh(tmp_path, Echo()) as (target, _), Pool(stranger, dial_timeout=1) as pool:
        with pytest.raises(Unavailable, match="went away|cannot reach"):
            await check_health(pool, target, timeout=2)


async def test_a_peer_without_an_identity_is_refused(tmp_path):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with mesh(tmp_path, Echo(), "tcp://127.0.0.1:0") as (target, _):
        port = parse_address(target).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"x")
        try:
            assert await reader.read() == b""  # closed without a word
        except (ssl.SSLError, ConnectionError):
            pass
        writer.close()


async def test_closing_a_call_s_connection_at_a_former_peer(tmp_path):
    """A client that is sent elsewhere closes where it was first."""
    from nsm.chains.elements.dial import Dial

    one, other = Echo(), Echo()
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with mesh(tmp_path / "1", one) as (first, pool), mesh(tmp_path / "2", other) as (second, _):
        chain = Chain([Begin(), Dial()], RemoteNetworkService(pool))
        await chain.request(request("c", first))
        await chain.request(request("c", second))
        assert one.closed == ["c"]
        await chain.close(request("c"))
        assert other.closed == ["c"]


class Finds(Element):
    """Finds out where the peer is at the moment."""

    url = None

    async def request(self, call, rest):
        call.target = self.url
        return await rest.request(call)

    async def close(self, call, rest):
        call.target = self.url
        await rest.close(call)


async def test_a_forwarder_that_registered_again_under_another_url_hears_of_a_close(tmp_path):
    from nsm.chains.elements.dial import Dial

    one, other, finds = Echo(), Echo(), Finds()
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with mesh(tmp_path / "1", one) as (before, pool), mesh(tmp_path / "2", other) as (now, _):
        chain = Chain([Begin(), finds, Dial()], RemoteNetworkService(pool))
        finds.url = before
        await chain.request(request("c"))
        finds.url = now
        await chain.close(request("c"))
        assert (one.closed, other.closed) == ([], ["c"])


async def test_a_connection_whose_peer_is_not_found_any_more_is_closed_where_it_was(tmp_path):
    from nsm.chains.elements.dial import Dial

    one, finds = Echo(), Finds()
    async with mesh(tmp_path, one) as (url, pool):
        chain = Chain([Begin(), finds, Dial()], RemoteNetworkService(pool))
        finds.url = url
        await chain.request(request("c"))
        finds.url = None
        await chain.close(request("c"))
        assert one.closed == ["c"]


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("unix:/run/x.sock", "unix:///run/x.sock"),
        ("tcp://host:1", "tcp://host:1"),
        ("tcp://:5001", "tcp://:5001"),
        ("tcp://[::1]:5001", "tcp://[::1]:5001"),
        ("tcp://[10.0.0.1]:5001", "tcp://10.0.0.1:5001"),
        ("registry:5002", "tcp://registry:5002"),
    ],
)
def test_addresses(url, read):
    assert str(parse_address(url)) == read


@pytest.mark.parametrize("url", ["", "unix:", "tcp://host", "host", "http://x:1", "tcp://host:port", "tcp://h:99999"])
def test_what_is_no_address_is_named_with_what_would_do(url):
    with pytest.raises(InvalidRequest, match="is not an address.*write unix"):
        parse_address(url)


def test_a_url_without_a_host_is_published_with_one():
    assert publishable("tcp://10.1.2.3:5") == "tcp://10.1.2.3:5"
    assert publishable("unix:///x") == "unix:///x"
    assert parse_address(publishable("tcp://:5")).host


async def test_a_namespace_is_closed_whose_request_was_given_up_before_its_turn(tmp_path):
    """A busy forwarder must not keep the namespace of a client that was killed meanwhile."""
    gate, begun = asyncio.Event(), []

    class Waits:
        async def request(self, call):
            begun.append(call.connection.id)
            await gate.wait()
            return call.connection

        async def close(self, call):
            pass

    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    limits = Limits(calls=1)
    async with (
        serve([f"unix://{tmp_path}/s.sock"], network_service(Waits()), server, name="server", limits=limits) as urls,
        Pool(client, dial_timeout=2) as pool,
    ):
        chain = Chain([Begin(), SendDescriptors()], RemoteNetworkService(pool))
        first = asyncio.ensure_future(chain.request(request("first", urls[0])))
        async with asyncio.timeout(5):
            while not begun:
                await asyncio.sleep(0)
            before = descriptors()
            second = asyncio.ensure_future(chain.request(wire(urls[0], "second")))
            while descriptors() == before:
                await asyncio.sleep(0)
            second.cancel()
            while descriptors() != before:
                await asyncio.sleep(0)
        gate.set()
        await asyncio.wait([first, second])
        assert begun == ["first"]


async def test_a_descriptor_whose_message_never_comes_is_closed_after_a_while(monkeypatch):
    monkeypatch.setattr(inbox, "UNCLAIMED", 0.05)
    before, received = descriptors(), inbox.FileInbox()
    received.arrived(os.open(NAMESPACE, os.O_PATH))
    received.arrived(os.open("/proc/self/ns/uts", os.O_PATH))
    in_use = await received.take(*file_key(inode_url(NAMESPACE)), timeout=1)
    async with asyncio.timeout(5):
        while len(received) > 1:
            await asyncio.sleep(0.01)
    assert os.path.exists(in_use.path)
    received.close()
    in_use.release()
    assert descriptors() == before
