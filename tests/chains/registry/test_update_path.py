"""The identities of a record that comes with fewer of them than its path has components."""

import jwt

from nsm.apis.registry import NetworkService
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import ClientToken, RegistryCall, RegistryChain
from nsm.chains.registry.update_path import UpdatePath


def token(subject):
    return ClientToken(jwt.encode({"sub": subject}, "k" * 32, algorithm="HS256"), Timestamp.from_seconds(1))


class Own:
    """An identity."""

    def token(self, peer):
        return token("registry")

    def has_rotated_since(self, peer):
        return False


async def test_identities_are_appended_without_gaps():
    call = RegistryCall(NetworkService(name="n"), peer=object(), token=token("nsmgr"))
    call.path.index, call.path.tokens = 1, [token(name).token for name in ("nse", "nsmgr")]
    record = await RegistryChain([UpdatePath(Own())]).register(call)
    assert record.path_ids == ["nsmgr", "registry"]
    assert (call.path.index, len(call.path.tokens)) == (1, 3)
