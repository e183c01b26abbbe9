"""What one process may hold of the issuer's socket."""

import asyncio
import os
import socket

import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from nsm.apis import codec
from nsm.apis.workload import SpiffeWorkloadApiStub, X509SvidRequest
from nsm.chains.core import Limits
from nsm.chains.identity import Authority
from nsm.chains.identity.source import SECURITY_HEADER
from nsm.chains.transport import SocketAccess
from nsm.services.identity import guests
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.entries import Entries
from nsm.services.identity.issuer import Issuer
from nsm.services.identity.sockets import Sockets
from tests.kube.stand_in import eventually

AUTHORITY = Authority.create("test.mesh")


@pytest.fixture
async def serve(tmp_path):
    """Starts an issuer with limits; gives its socket's path."""
    path = str(tmp_path / "s")
    sockets = []

    async def start(**limits):
        entries = Entries.parse([f"socket:{path}=spiffe://test.mesh/x"])
        issuer = Issuer(Authorities([AUTHORITY]), entries.identify, limits=Limits(**limits))
        served = Sockets(issuer.methods, name="identity", access=SocketAccess(), limits=Limits(**limits))
        await served.serve([path])
        sockets.append(served)
        return path

    yield start
    for each in sockets:
        await each.serve(())


def connected(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # who says nothing is no guest yet
    connection.setblocking(False)
    return connection


async def is_ended(connection):
    """Whether the other end has closed it."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            async with asyncio.timeout(0.1):
                if not await loop.sock_recv(connection, 4096):
                    return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def ask(channel):
    return SpiffeWorkloadApiStub(channel).fetch_x_509_svid(X509SvidRequest(), metadata=SECURITY_HEADER)


async def test_a_container_has_so_many_connections_and_no_more_until_some_end(serve, capsys):
    path = await serve(identity_connections=3)
    first = [connected(path) for _ in range(3)]
    assert [await is_ended(each) for each in first] == [False] * 3
    one_more = connected(path)
    assert await is_ended(one_more)
    assert "refused by the limit identity_connections" in capsys.readouterr().out
    first.pop().close()
    await asyncio.sleep(0.05)
    again = connected(path)
    assert not await is_ended(again)
    for each in (*first, one_more, again):
        each.close()


async def test_connections_of_another_container_are_counted_apart(serve, tmp_path):
    server = type("Server", (), {"connections": set()})()
    counted = guests.Guests(server, Limits(identity_connections=1), proc=tmp_path)
    for pid, group in ((1, "a"), (2, "a"), (3, "b")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"0::/{group}\n")
    admitted = []
    for pid, uid in ((1, 0), (2, 0), (3, 0), (2, 1000)):
        credentials = guests.Credentials(pid, uid, uid, os.pidfd_open(os.getpid()))
        server.connections.add(type("Connection", (), {"credentials": credentials})())
        admitted.append(counted.admits(credentials))
        credentials.close()
    assert admitted == [True, False, True, True]


async def test_a_connection_without_a_call_is_ended_and_one_that_waits_for_an_svid_is_not(serve, monkeypatch):
    monkeypatch.setattr(guests, "_IDLE", 0.05)
    monkeypatch.setattr(guests, "_SWEEP", 0.02)
    path = await serve()
    idle, channel = connected(path), Channel(path=path, codec=codec.Codec())
    answers = ask(channel)
    await anext(answers)
    protocol = channel._protocol
    while not await is_ended(idle):
        pass
    assert not protocol.processor.connection.is_closing()
    idle.close()
    await answers.aclose()
    await eventually(lambda: protocol.processor.connection.is_closing() or protocol.connection.is_closing())
    channel.close()


async def test_a_process_has_so_many_streams_and_no_more(serve):
    path = await serve(identity_streams=2)
    channel, other = Channel(path=path, codec=codec.Codec()), Channel(path=path, codec=codec.Codec())
    streams = [ask(channel), ask(other)]
    for each in streams:
        await anext(each)
    with pytest.raises(GRPCError, match="2 streams open here; .* NSM_LIMITS=identity_streams:N") as refused:
        await anext(ask(other))
    assert refused.value.status.name == "RESOURCE_EXHAUSTED"
    await streams.pop().aclose()
    await asyncio.sleep(0.05)  # the reset is on its way
    again = ask(other)
    await anext(again)
    await again.aclose()
    await streams.pop().aclose()
    channel.close()
    other.close()


async def test_who_asks_again_and_again_is_not_made_a_new_key_each_time(serve):
    path = await serve()
    channel = Channel(path=path, codec=codec.Codec())
    keys = set()
    for _ in range(5):
        answers = ask(channel)
        keys.add((await anext(answers)).svids[0].x509_svid_key)
        await answers.aclose()
    assert len(keys) == 1
    channel.close()
