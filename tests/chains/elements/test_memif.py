"""Memif sockets, as workloads name them."""

from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain
from nsm.chains.elements.memif import MemifClient, MemifEndpoint
from nsm.chains.testing import Record, call


async def test_a_client_requests_its_memif_in_its_own_namespace_and_other_mechanisms_as_they_are():
    seen = Record()
    wanted = [Mechanism(type="MEMIF"), Mechanism(type="KERNEL")]
    await Chain([MemifClient("file:///ns/a"), seen]).request(call(preferences=wanted))
    memif, kernel = seen.requests[0].mechanism_preferences
    assert memif.parameters == {"inodeURL": "file:///ns/a"}
    assert kernel.parameters == {}


async def test_an_endpoint_names_a_socket_of_its_namespace_for_each_connection():
    chain = Chain([Begin(), MemifEndpoint("@/run/{}.sock".format, "file:///ns/b")])
    for name in ("one", "two"):
        connection = await chain.request(call(name, mechanism=Mechanism(type="MEMIF")))
        assert connection.mechanism.parameters == {"inodeURL": "file:///ns/b", "socketfile": f"@/run/{name}.sock"}
