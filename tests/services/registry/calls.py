"""Calls of a registry as they arrive over mTLS, and what is found."""

from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import RegistrySettings
from nsm.chains.core import Peer, RegistryCall
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.services.registry.sqlite import sqlite_registry

AUTHORITY = Authority.create("test.mesh")
OWN, ONE, OTHER = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))
ANY = NetworkServiceEndpoint()


def asks(record, caller=ONE, **options):
    """A call as it arrives over mTLS."""

    def peer(identity):
        return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))

    return RegistryCall(record, peer=peer(caller), token=caller.token(peer(OWN)), **options)


def nse(name="nse", *services, **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), **fields)


async def find(chain, query):
    return [found.record async for batch in chain.find(asks(query)) for found in batch]


async def names(chain, query):
    return sorted(record.name for record in await find(chain, query))


def opened(path, **settings):
    return sqlite_registry(OWN, RegistrySettings(**settings), path)
