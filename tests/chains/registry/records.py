"""Records and calls for tests of registries."""

import asyncio
import time

from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Found, Peer, RegistryCall, RegistryElement, Unavailable
from nsm.chains.identity import Authority

AUTHORITY = Authority.create("test.mesh")


def nse(name="nse", *services, **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), **fields)


async def find(chain, query=None, **options):
    return [
        f.record
        async for batch in chain.find(RegistryCall(query or NetworkServiceEndpoint(), **options))
        for f in batch
    ]


class Probe(RegistryElement):
    def __init__(self, *failures):
        self.registered, self.unregistered, self.failures = [], [], list(failures)

    async def register(self, call, rest):
        self.registered.append((call.record.name, getattr(call.record, "url", None)))
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        return await rest.register(call)

    async def unregister(self, call, rest):
        self.unregistered.append((call.record.name, getattr(call.record, "url", None)))
        await rest.unregister(call)


def peer_of(identity):
    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


def asks(record, caller, registry, **fields):
    """A call as it arrives at the registry over mTLS."""
    return RegistryCall(record, peer=peer_of(caller), token=caller.token(peer_of(registry)), **fields)


class Registry(Probe):
    """Gives an expiration time."""

    def __init__(self, *failures):
        super().__init__(*failures)
        self.watches = []

    async def register(self, call, rest):
        record = await super().register(call, rest)
        record.expiration_time = Timestamp.from_seconds(time.time() + 60)
        return record

    async def find(self, call, rest):
        gone = asyncio.get_running_loop().create_future()
        self.watches.append(gone)
        yield [Found(nse(call.record.name))]
        await gone
        raise Unavailable("the registry went away")
