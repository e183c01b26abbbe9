"""Under which URLs endpoints may be registered."""

import pytest

from nsm.chains.core import InvalidRequest, Peer, Refused, RegistryCall, RegistryChain
from nsm.chains.policy import Hosts, IdPatterns, Trust
from nsm.chains.registry.allow_urls import AllowUrls
from nsm.chains.testing import Record
from tests.chains.registry.records import nse

TRUST = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr"]))


async def register(url, *, who="client", address="10.0.0.7", takes_descriptors=False, **fields):
    """Whether it came to the registry, by an address or (with an empty one) by a unix socket."""
    probe = Record()
    allow = AllowUrls(Hosts(["10.9.0.0/16", "*.example.org"]), TRUST, takes_descriptors=takes_descriptors)
    peer = Peer(f"spiffe://test.mesh/{who}", b"", address=address, **fields)
    await RegistryChain([allow, probe]).register(RegistryCall(nse("a", url=url), peer=peer))
    return len(probe.registered) == 1


@pytest.mark.parametrize("url", ["tcp://10.0.0.7:5001", "tcp://10.9.1.2:5001", "tcp://gw.example.org:5001", ""])
async def test_an_endpoint_is_registered_where_it_called_from_or_at_a_listed_host(url):
    assert await register(url)


@pytest.mark.parametrize(
    "url", ["tcp://10.0.0.8:5001", "tcp://127.0.0.1:5001", "tcp://0.0.0.0:5001", "tcp://other.org:5001", "inode://4/5"]
)
async def test_nobody_has_clients_sent_to_an_address_of_somebody_else(url):
    with pytest.raises(Refused, match=r"client may not register 'a' at .*; NSM_REGISTRATION_HOSTS lists others"):
        await register(url)


async def test_a_manager_may_name_other_hosts_but_nowhere():
    assert await register("tcp://10.0.0.8:5001", who="nsmgr")
    assert await register("tcp://other.org:5001", who="nsmgr")
    with pytest.raises(Refused):
        await register("tcp://0.0.0.0:5001", who="nsmgr")


async def test_loopback_is_for_callers_of_the_same_network_namespace():
    assert await register("tcp://127.0.0.1:5001", address="", is_near=True)
    with pytest.raises(Refused):
        await register("tcp://127.0.0.1:5001", address="", is_near=False)


async def test_a_socket_is_passed_to_a_manager_over_a_socket_only():
    assert await register("inode://4/5", address="", takes_descriptors=True)
    with pytest.raises(Refused):
        await register("inode://4/5", takes_descriptors=True)


@pytest.mark.parametrize("url", ["http://10.0.0.7:80", "tcp://10.0.0.7", "nonsense"])
async def test_a_url_of_no_use_is_refused_with_one_that_is(url):
    with pytest.raises(InvalidRequest, match=r"'a' cannot be registered at .*; expected tcp://host:port"):
        await register(url)
