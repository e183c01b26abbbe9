"""A domain that hosts can join: its issuer's server on this machine, with a clock that tests set."""

from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric import ec

from nsm.chains.config.address import parse_address
from nsm.chains.identity import Authority
from nsm.node.joining import join
from nsm.node.member import Member
from nsm.node.state import State
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.joining.server import JoinServer, joining
from nsm.services.identity.joining.store import JoinStore


class Domain:
    """`seconds` is its clock; `authorities`, `store` and `server` are those of an issuer."""

    def __init__(self, folder, name="test.mesh", *, lifetime=3600.0, federated=None):
        self.seconds = 1_000_000.0
        self.authorities = Authorities([Authority.create(name)])
        self.store = JoinStore(str(folder / name), now=lambda: self.seconds)
        self.server = JoinServer(
            self.authorities,
            self.store,
            lifetime=lifetime,
            of_workloads=3600.0,
            settings={"registry": "tcp://192.0.2.1:5002", "intermediaries": "/nsmgr"},
            federated=federated,
        )

    def token(self, node="edge-1", **how):
        return self.store.new_token(node, **{"lifetime": 3600.0, **how})

    async def member(self, folder, node="edge-1"):
        """A host that has joined, with its state in `folder`."""
        state = State(str(folder))
        membership = await join(self.token(node), new_key())
        state.save(membership)
        return Member(state, membership, token_lifetime=600)


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


@asynccontextmanager
async def domain(folder, name="test.mesh", **how):
    """It serves while the context is open."""
    made = Domain(folder, name, **how)
    address = parse_address("tcp://127.0.0.1:0")
    async with joining(made.server, made.store, made.authorities, address, ""):
        yield made
