"""Records that are too large, or cannot be shown."""

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, InvalidRequest, Limits, Peer, RegistryCall, RegistryChain
from nsm.chains.core.registry import RegistryPath
from nsm.chains.registry.check_record import CheckRecord
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import nse

PEER = Peer("spiffe://test.mesh/client", b"")


def chain_of():
    memory = Memory()
    return RegistryChain([CheckRecord(ENDPOINTS, Limits(services=2, path_ids=2)), memory]), memory.records


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (nse("a", "x", "y", "z"), "endpoint 'a' is too large: "),
        (nse("a\nb"), "name"),
        (nse("a", url="tcp://\x1b[1m:1"), "URL"),
    ],
    ids=["too many services", "a line's end", "an escape"],
)
async def test_what_nobody_could_be_sent_or_shown_is_not_stored(record, fault):
    chain, records = chain_of()
    for attempt in (chain.register, chain.unregister):
        with pytest.raises(InvalidRequest, match=fault):
            await attempt(RegistryCall(record, peer=PEER))
    with pytest.raises(InvalidRequest):
        [batch async for batch in chain.find(RegistryCall(record, peer=PEER))]
    assert len(records) == 0


async def test_a_registration_that_has_passed_too_many_components_is_refused():
    chain, _ = chain_of()
    with pytest.raises(InvalidRequest, match="has passed 3 components; at most 2 are allowed"):
        await chain.register(RegistryCall(nse("a"), peer=PEER, path=RegistryPath(2, ["", "", ""])))


async def test_what_can_be_stored_and_what_this_process_registers_itself_pass():
    chain, records = chain_of()
    await chain.register(RegistryCall(nse("a", "x", "y"), peer=PEER))
    await chain.register(RegistryCall(nse("b", "x", "y", "z")))
    assert len(records) == 2
    assert [batch async for batch in chain.find(RegistryCall(NetworkServiceEndpoint(name="a"), peer=PEER))]
