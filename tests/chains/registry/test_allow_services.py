"""Who may provide which service."""

import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.core import Peer, Refused, RegistryCall, RegistryChain
from nsm.chains.policy import IdPatterns, Registration
from nsm.chains.registry.allow_services import AllowServices
from nsm.chains.testing import Record, identity_of
from tests.chains.registry.records import AUTHORITY, nse

OWN = identity_of(AUTHORITY, "registry")


def chain_of(rules=""):
    probe, rules = Record(), Registration.parse(rules)
    allow = AllowServices(rules, OWN, forwarder_service="forwarder", forwarders=IdPatterns(["/forwarder-*"]))
    return RegistryChain([allow, probe]), probe


def of(name, record):
    """A call that began at `name` and came by a manager."""
    return RegistryCall(record, peer=Peer("spiffe://test.mesh/nsmgr", b""), origin=f"spiffe://test.mesh/{name}")


@pytest.mark.parametrize(
    "record",
    [
        nse("mine", "forwarder"),
        nse("forwarder", "svc"),
        nse("forwarder-node-1", "svc"),
        NetworkService(name="forwarder"),
    ],
    ids=["service", "name", "name that begins so", "the service itself"],
)
async def test_only_a_forwarder_takes_the_place_of_one(record):
    chain, probe = chain_of()
    with pytest.raises(Refused, match="network service 'forwarder'; NSM_REGISTRATION_POLICY"):
        await chain.register(of("client", record))
    assert probe.registered == []
    await chain.register(of("forwarder-node-1", record))


async def test_a_service_with_a_rule_is_for_those_whom_it_names_and_others_are_open():
    chain, _ = chain_of("gold=/bank")
    await chain.register(of("anybody", nse("a", "silver")))
    await chain.register(of("bank", nse("a", "silver", "gold")))
    with pytest.raises(Refused, match=r"spiffe://test.mesh/anybody may not register for network service 'gold'"):
        await chain.register(of("anybody", nse("a", "silver", "gold")))


async def test_the_rule_for_all_others_decides_about_an_endpoint_without_services():
    chain, _ = chain_of("*=/bank")
    record = nse("a")
    record.network_service_names = []
    with pytest.raises(Refused, match="an endpoint without a network service"):
        await chain.register(of("anybody", record))
    await chain.register(of("bank", record))


async def test_what_this_process_registers_itself_is_not_asked_about():
    chain, probe = chain_of("*=")
    await chain.register(RegistryCall(nse("a")))
    assert len(probe.registered) == 1
