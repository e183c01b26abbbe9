"""Nobody learns what listens where by having the mesh dial it."""

import asyncio
import socket
from contextlib import AsyncExitStack, suppress

import pytest

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import client
from nsm.chains.core import Begin, Call, Chain, Element, MeshError
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.try_candidates import first_success
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve

AUTHORITY, OTHERS = Authority.create("test.mesh"), Authority.create("other.mesh")


class LedTo(Element):
    """Asks what somebody registered, as managers and forwarders do."""

    def __init__(self, url):
        self._endpoint = NetworkServiceEndpoint(name="probe", url=url)

    async def request(self, call, rest):
        _, connection = await first_success("candidates", [self._endpoint], 1, call, rest)
        return connection


async def told(url):
    """What a client hears whose forwarder was led to `url`."""
    async with Pool(identity_of(AUTHORITY, "forwarder"), dial_timeout=0.2) as pool:
        onward = Connect(client("forwarder", [], RemoteNetworkService(pool)))
        connection = Connection(id="1", network_service="svc")
        async with Chain([Begin(), LedTo(url), onward]) as chain:
            with pytest.raises(MeshError) as error:
                await chain.request(Call(NetworkServiceRequest(connection=connection)))
        return type(error.value), str(error.value).replace(url, "URL")


def place(sock):
    return f"tcp://127.0.0.1:{sock.getsockname()[1]}"


async def test_open_and_closed_ports_and_what_listens_there_look_the_same():
    async def hang_up(_reader, writer):
        writer.close()

    async def say_hello(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    with socket.socket() as free, socket.socket() as silent:
        free.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        places = {"closed": place(free), "silent": place(silent)}
        async with AsyncExitStack() as stack:
            for name, answer in (("hangs up", hang_up), ("another protocol", say_hello)):
                server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
                places[name] = place(server.sockets[0])
            serving = serve(["tcp://127.0.0.1:0"], {}, identity_of(OTHERS, "stranger"), name="stranger")
            (places["others' TLS"],) = await stack.enter_async_context(serving)
            heard = {name: await told(url) for name, url in places.items()}
    (kind, text), *others = set(heard.values())
    assert not others, heard
    assert text == "probe: cannot reach URL (transport)"
    assert kind.__name__ == "Unavailable"
