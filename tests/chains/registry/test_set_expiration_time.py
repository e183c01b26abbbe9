"""How long a registration holds."""

import time

import jwt
import pytest

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.core.registry import RegistryPath
from nsm.chains.registry.set_expiration_time import SetExpirationTime
from nsm.chains.testing import identity_of
from tests.chains.registry.records import AUTHORITY, nse, peer_of

CHAIN = RegistryChain([SetExpirationTime(60)])


def in_seconds(seconds):
    return Timestamp.from_seconds(time.time() + seconds)


async def seconds(**fields):
    """For how many the registration of such a call holds."""
    record = await CHAIN.register(RegistryCall(**{"record": nse("a"), **fields}))
    return record.expiration_time.to_seconds() - time.time()


async def test_an_endpoint_lives_as_long_as_the_registry_says_and_may_ask_for_less():
    assert await seconds() == pytest.approx(60, abs=1)
    assert await seconds(record=nse("a", expiration_time=in_seconds(1000))) == pytest.approx(60, abs=1)
    assert await seconds(record=nse("a", expiration_time=in_seconds(10))) == pytest.approx(10, abs=1)


async def test_no_registration_outlives_the_token_that_it_was_made_with():
    token = jwt.encode({"sub": "spiffe://test.mesh/a", "exp": int(time.time()) + 20}, "k" * 32)
    assert await seconds(path=RegistryPath(1, [token, ""])) == pytest.approx(20, abs=2)
    assert await seconds(path=RegistryPath(1, ["nonsense", ""])) == pytest.approx(60, abs=1)


async def test_no_registration_outlives_the_certificate_of_who_made_it():
    client = identity_of(AUTHORITY, "client")
    peer = peer_of(client)
    peer.__dict__["expires"] = time.time() + 30
    assert await seconds(peer=peer) == pytest.approx(30, abs=1)
