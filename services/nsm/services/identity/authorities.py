"""The authorities of one trust domain: one signs, all of them are trusted, so that they can be rotated.

The life of an authority has four quarters. In the first it is trusted but does not sign, so that it is in every bundle
before its first SVID is used. In the next two it signs; half-way, its successor is created. In the last one it is only
trusted, for the SVIDs that it has signed. The very first authority signs from the beginning. One that lives much longer
than its predecessor, or was created late, starts half-way to the predecessor's end, so that no SVID expires early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509

from nsm.chains.identity import Authority, Svid

_BEFORE = timedelta(minutes=1)
"""An authority is valid from that long before its creation, to allow for clock skew."""


class Authorities:
    """The authorities in use, at least one; `use` changes them, and wakes those that wait for a change."""

    def __init__(self, authorities: Iterable[Authority]) -> None:
        self.all = tuple(authorities)
        self.version = 0
        """Counts the changes of the bundles."""
        self._changed = asyncio.Event()

    @property
    def bundle(self) -> list[x509.Certificate]:
        """The certificates to trust."""
        return [authority.certificate for authority in self.all]

    @property
    def signing(self) -> Authority:
        """The authority that signs now."""
        return signing(self.all, datetime.now(UTC))

    @property
    def trust_domain(self) -> str:
        """The domain of all that is issued."""
        return self.all[0].trust_domain

    async def issue(self, spiffe_id: str, lifetime: float) -> Svid:
        """A new SVID, valid for `lifetime` seconds."""
        return self.signing.issue(spiffe_id, lifetime=timedelta(seconds=lifetime))

    def use(self, authorities: Iterable[Authority]) -> None:
        """Switch to these authorities; if the bundle changed, callers of `changed` are woken."""
        before, self.all = self.bundle, tuple(authorities)
        if self.bundle != before:
            self.wake()

    def wake(self) -> None:
        """Wake callers of `changed`: what is issued has changed, here or in a federated domain."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, version: int) -> None:
        """Wait until the bundle differs from `version`."""
        while self.version == version:
            await self._changed.wait()


def signing(authorities: Iterable[Authority], now: datetime) -> Authority:
    """The newest that has been trusted long enough; else the oldest that has not expired; else the newest."""
    ordered = sorted(authorities, key=_begin)
    living = alive(ordered, now) or ordered[-1:]
    known = [each for number, each in enumerate(living) if number and now >= _known(each, living[:number])]
    return known[-1] if known else living[0]


def alive(authorities: Iterable[Authority], now: datetime) -> list[Authority]:
    """Those that have not expired, oldest first."""
    return sorted((each for each in authorities if now < _part(each, 1)), key=_begin)


def is_due(authorities: Iterable[Authority], now: datetime) -> bool:
    """Whether a new one is needed: there is none, or the newest is past half of its life."""
    return all(now >= _part(authority, 1 / 2) for authority in authorities)


def _begin(authority: Authority) -> datetime:
    return authority.certificate.not_valid_before_utc


def _known(authority: Authority, before: Iterable[Authority]) -> datetime:
    """The time at which it has been trusted long enough to sign instead of those `before`."""
    made, end = _begin(authority) + _BEFORE, max(_part(each, 1) for each in before)
    return min(_part(authority, 1 / 4), max(made, made + (end - made) / 2))


def _part(authority: Authority, part: float) -> datetime:
    """The time at which that part of its life is over."""
    begin, end = _begin(authority), authority.certificate.not_valid_after_utc
    return begin + (end - begin) * part
