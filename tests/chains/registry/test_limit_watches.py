"""How many watches a peer has."""

import asyncio

import pytest

from nsm.chains.core import Exhausted, InvalidRequest, Limits, Peer, RegistryCall, RegistryChain
from nsm.chains.registry.limit_watches import LimitWatches
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import nse


def watch(chain, name="client", record=None):
    record = record or nse("a")
    return chain.find(RegistryCall(record, peer=Peer(f"spiffe://test.mesh/{name}", b""), watch=True))


@pytest.fixture
def chain():
    return RegistryChain([LimitWatches(Limits(watches=2, watch=100)), Memory()])


async def test_a_peer_that_watches_too_much_is_refused_and_others_and_its_other_calls_are_not(chain):
    watches = [watch(chain), watch(chain), watch(chain, "other")]
    for each in watches:
        await anext(each)
    with pytest.raises(Exhausted, match=r"test\.mesh/client already has 2 watches.*NSM_LIMITS=watches:"):
        await anext(watch(chain))
    assert [batch async for batch in chain.find(RegistryCall(nse("a"), peer=Peer("spiffe://test.mesh/client", b"")))]
    await watches.pop(0).aclose()
    await asyncio.sleep(1)  # the generators behind it are closed by the loop
    watches.append(watch(chain))
    await anext(watches[-1])
    for each in watches:
        await each.aclose()


async def test_a_watch_that_asks_for_too_much_is_refused_and_takes_no_place(chain):
    long = nse("a", *(f"service-{number}" for number in range(20)))
    for _ in range(3):
        with pytest.raises(InvalidRequest, match=r"the query of the watch has \d+ bytes; at most 100 are allowed"):
            await anext(watch(chain, record=long))
    each = watch(chain)
    await anext(each)
    await each.aclose()
