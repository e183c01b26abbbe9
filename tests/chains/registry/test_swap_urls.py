"""Registers endpoints under addresses that other domains can reach."""

import pytest

from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.swap_urls import SwapUrls
from nsm.chains.testing.domains import Table
from tests.chains.registry.records import nse


@pytest.mark.parametrize(
    ("own", "published"),
    [
        ("tcp://10.0.0.4:5004", "tcp://203.0.113.4:5004"),
        ("tcp://10.0.0.5:5004", "tcp://10.0.0.5:5004"),
        ("tcp://[fd00::4]:5004", "tcp://[2001:db8::4]:5004"),
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("nonsense", "nonsense"),
    ],
)
async def test_a_host_of_the_table_is_swapped_on_the_way_and_given_back(own, published):
    memory, table = Memory(), Table({"10.0.0.4": "203.0.113.4", "fd00::4": "2001:db8::4"})
    chain = RegistryChain([SwapUrls(table), memory])
    assert (await chain.register(RegistryCall(nse("a", url=own)))).url == own
    assert memory.records.get("a").url == published
    await chain.unregister(RegistryCall(nse("a", url=own)))
