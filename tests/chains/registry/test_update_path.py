"""The identities of a record, and what it says of them itself."""

import jwt
import pytest

from nsm.apis.registry import NetworkService
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import ClientToken, RegistryCall, RegistryChain
from nsm.chains.registry.update_path import RegistryUpdatePath


def token(subject):
    return ClientToken(jwt.encode({"sub": subject}, "k" * 32, algorithm="HS256"), Timestamp.from_seconds(1))


class Own:
    """An identity."""

    def token(self, peer):
        return token("registry")

    def has_rotated_since(self, peer):
        return False


@pytest.mark.parametrize("told", [[], ["nse", "nsmgr", "old-registry"], ["victim", "victim", "victim", "victim"]])
async def test_a_record_s_identities_are_those_of_the_path_whatever_it_said_before(told):
    call = RegistryCall(NetworkService(name="n", path_ids=told), peer=object(), token=token("nsmgr"))
    call.path.index, call.path.tokens = 1, [token(name).token for name in ("nse", "nsmgr")]
    record = await RegistryChain([RegistryUpdatePath(Own())]).register(call)
    assert record.path_ids == ["nse", "nsmgr", "registry"]
    assert (call.path.index, len(call.path.tokens)) == (1, 3)
