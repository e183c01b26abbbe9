"""The README's endpoint."""

import importlib.util
from pathlib import Path

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.composed import client, endpoint
from nsm.chains.core import Call
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_endpoint.py"


def load():
    spec = importlib.util.spec_from_file_location("custom_endpoint", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_an_endpoint_with_an_element_of_its_own_serves_clients(tmp_path):
    """Addresses, and what its own element adds: a client that asks again counts once, one that leaves no more."""
    authority = Authority.create("test.mesh")
    own, identity = identity_of(authority, "endpoint"), identity_of(authority, "client")
    server = endpoint("counting", own, load().counting_endpoint([["10.9.0.0/24"]]))
    url = f"unix://{tmp_path}/e.sock"
    async with server, serve([url], server.methods(), own, name="counting"), Pool(identity) as pool:
        chain = client("client", [], RemoteNetworkService(pool), url=url)
        first = await chain.request(call("a"))
        assert first.context.ip_context.src_ip_addrs == ["10.9.0.1/32"]
        assert first.context.extra_context["clients"] == "1"
        assert (await chain.request(call("b"))).context.extra_context["clients"] == "2"
        assert (await chain.request(call("b"))).context.extra_context["clients"] == "2"
        await chain.close(call("a"))
        await chain.close(call("b"))
        assert (await chain.request(call("c"))).context.extra_context["clients"] == "1"


def call(name):
    preference = Mechanism(cls="LOCAL", type="KERNEL")
    connection = Connection(id=name, network_service="counting")
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=[preference]))


def test_it_is_short():
    """The README promises an endpoint in under 30 lines, imports included."""
    lines = EXAMPLE.read_text().split('"""', 2)[2].splitlines()
    assert sum(1 for line in lines if line.strip()) < 30
