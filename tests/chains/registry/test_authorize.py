"""Who may register, and what belongs to whom at a manager."""

import pytest

from nsm.chains.composed import memory_registry
from nsm.chains.core import Refused
from nsm.chains.testing.identity import identity_of
from tests.chains.registry.records import AUTHORITY, asks, find, nse


async def test_a_caller_without_a_token_is_refused():
    own, one = identity_of(AUTHORITY, "registry"), identity_of(AUTHORITY, "one")
    registry = memory_registry(own)
    call = asks(nse("a"), one, own)
    call.token = None
    with pytest.raises(Refused, match="tokens_valid: segment 0 has no token"):
        await registry.endpoints.register(call)
    assert await find(registry.endpoints) == []
    await registry.aclose()
