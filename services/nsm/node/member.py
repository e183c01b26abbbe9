"""The identity of a host in the domain that it has joined: renewed, and the source of its workloads' SVIDs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nsm.chains.core import Backoff, MeshError, Refused, Tasks
from nsm.chains.identity import Identity, Svid
from nsm.chains.identity.source import tell_of_the_end
from nsm.chains.logs import log
from nsm.services.identity.joining.token import issuer_id

from .joining import exchange, membership_from, request_for
from .state import Membership, State

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class Member:
    """A host in a domain. `identity` follows its SVID; workloads' SVIDs come from the domain, see `issue`.

    The host replaces its key with each renewal, and stores the new one before it uses it.
    """

    def __init__(self, state: State, membership: Membership, *, token_lifetime: float) -> None:
        self.identity = Identity(token_lifetime=token_lifetime)
        self.version = 0
        """Counts the changes of the bundles."""
        self._state, self._membership = state, membership
        self._changed = asyncio.Event()
        self._one_by_one = asyncio.Lock()  # the domain takes a replaced certificate for a copied one
        self._use(membership)

    @property
    def membership(self) -> Membership:
        """What the domain has issued and told last."""
        return self._membership

    @property
    def trust_domain(self) -> str:
        """The domain that the host has joined."""
        return self._membership.trust_domain

    @property
    def bundle(self) -> Sequence[x509.Certificate]:
        """The authorities of that domain."""
        return self._membership.bundles[self.trust_domain]

    @property
    def lifetime(self) -> float:
        """For how long the domain issues SVIDs to the host, in seconds."""
        leaf = self._membership.svid.leaf
        return (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()

    async def issue(self, spiffe_id: str, _lifetime: float) -> Svid:
        """A new SVID for a workload of this host, for as long as the domain allows.

        Raises `MeshError` if the domain cannot be reached or refuses it.
        """
        path = spiffe_id.removeprefix(f"{self.identity.spiffe_id}/")
        return (await self._requested(path, spiffe_id)).svid

    async def changed(self, version: int) -> None:
        """Wait until the bundles differ from `version`."""
        while self.version == version:
            await self._changed.wait()

    async def renew(self) -> None:
        """Replace the host's own SVID. Raises `MeshError`, or OSError if it cannot be stored."""
        membership = await self._requested("", self.identity.spiffe_id)
        log.info("renewed", expires=membership.svid.leaf.not_valid_after_utc.isoformat())

    async def keep(self) -> None:
        """Renew the host's SVID after half of its life, forever."""
        backoff, told = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), ""
        while True:
            await asyncio.sleep(max(0.0, self._membership.svid.expires - time.time() - self.lifetime / 2))
            try:
                await self.renew()
                backoff, told = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), ""
                self.identity.is_source_away = False
                await asyncio.sleep(_FIRST_PAUSE)
            except (MeshError, OSError) as error:
                self.identity.is_source_away = True
                if str(error) != told:
                    told = str(error)
                    tell = log.error if isinstance(error, Refused) else log.warning
                    tell(
                        "the identity is not renewed",
                        reason=told,
                        expires=self._membership.svid.leaf.not_valid_after_utc.isoformat(),
                    )
                await asyncio.sleep(backoff.next())

    async def _requested(self, path: str, spiffe_id: str) -> Membership:
        """An answer with a new SVID; that of the host itself, and new bundles, are used from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        async with self._one_by_one:
            current = self._membership
            answer = await exchange(
                current.address,
                self.identity.client_context(),
                {"requests": {path: request_for(key)}},
                self._check_issuer,
            )
            received = membership_from(answer, path, key, current.address, spiffe_id)
            svid = current.svid if path else received.svid
            new = Membership(svid, received.bundles, current.address, received.settings)
            if new.bundles != current.bundles or new.svid != current.svid or new.settings != current.settings:
                self._state.save(new)  # before it is used: with the old one, the host could not come back
                self._use(new)
            return received

    def _check_issuer(self, connection: object) -> None:
        peer, wanted = self.identity.verify(connection), issuer_id(self.trust_domain)  # type: ignore[arg-type]
        if peer.spiffe_id != wanted:
            raise Refused(f"the server at {self._membership.address} is {peer.spiffe_id}, not {wanted}")

    def _use(self, membership: Membership) -> None:
        before, self._membership = self._membership.bundles, membership
        self.identity.update(membership.svid, membership.bundles)
        if membership.bundles != before:
            self.version += 1
            self._changed.set()
            self._changed = asyncio.Event()


@asynccontextmanager
async def membership_kept(member: Member) -> AsyncIterator[None]:
    """Renew the member's identity while the context is open."""
    there = asyncio.Event()
    there.set()
    async with Tasks("membership") as tasks:
        tasks.spawn(member.keep(), name="renew the identity")
        tasks.spawn(tell_of_the_end(member.identity, str(member.membership.address), there), name="end of the SVID")
        yield
