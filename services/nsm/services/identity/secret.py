"""The authorities of all nodes of a cluster, in one Secret; any node creates missing ones.

The Secret may exist and be empty. Its entries are `1.crt` and `1.key` for the oldest authority, and so on. A write
specifies the version that was read, so that one of several nodes wins and the others use its result. To distrust all
authorities, empty the Secret: all nodes switch to a new one at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from nsm.chains.core import MeshError, Refused, Tasks
from nsm.chains.identity import Authority, spiffe_id_of
from nsm.chains.logs import log
from nsm.kube import SECRETS, Api, Object, ObjectConflict, Reflector

from .authorities import Authorities, alive, is_due
from .pem import authority_from, certificate_of, key_of

_TICK = 60.0
"""Seconds between checks whether a new authority is needed."""
_PAUSE = 5.0
"""Seconds between attempts while there is no authority."""


@asynccontextmanager
async def shared_authorities(
    api: Api, name: str, trust_domain: str, *, lifetime: timedelta
) -> AsyncIterator[Authorities]:
    """The authorities in the Secret `name` of our namespace, followed and renewed; waits until there is one.

    `lifetime` is that of new authorities. Failures to read or write are warnings, and retried.
    """
    reflector = Reflector(api, SECRETS, api.namespace, fields=f"metadata.name={name}")
    async with reflector as secrets, Tasks("authorities") as tasks:
        keeper = _Keeper(api, secrets, name, trust_domain, lifetime)
        await secrets.synced()
        while not (first := await keeper.look()):
            await keeper.news(_PAUSE)
        authorities = Authorities(first)
        tasks.spawn(keeper.follow(authorities), name=f"Secret {name}")
        yield authorities


class _Keeper:
    """Reads and renews one Secret."""

    def __init__(self, api: Api, secrets: Reflector, name: str, trust_domain: str, lifetime: timedelta) -> None:
        self._api, self._secrets, self._name = api, secrets, name
        self._trust_domain, self._lifetime = trust_domain, lifetime
        self._uid = ""
        """The uid of the last Secret with authorities; a re-created Secret has another."""
        self._news = asyncio.Event()
        secrets.on_change(lambda _change: self._news.set())

    async def follow(self, authorities: Authorities) -> None:
        """Keep `authorities` equal to the Secret's content, forever."""
        while True:
            await self.news(_TICK)
            if found := await self.look(authorities.all):
                authorities.use(found)

    async def news(self, seconds: float) -> None:
        """Wait until the Secret changes, for at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def look(self, known: Sequence[Authority] = ()) -> list[Authority]:
        """The authorities in the Secret, renewed if necessary; empty if it cannot be read or written.

        A deleted Secret, also if it was re-created without content, gets the `known` authorities; an emptied one gets a
        new authority.
        """
        secret, now = self._secrets.objects.get((self._api.namespace, self._name)), datetime.now(UTC)
        try:
            kept: Sequence[Authority] = authorities_in(secret, self._trust_domain) if secret else []
        except ValueError as error:
            log.error(
                "the Secret cannot be used; empty it to create new authorities", secret=self._name, error=str(error)
            )
            return []
        uid = secret["metadata"]["uid"] if secret else ""
        if kept:
            self._uid = uid
        was_lost = not kept and (not uid or uid != self._uid)
        if was_lost:
            kept = known
        found, is_new = alive(kept, now), is_due(kept, now)
        if is_new:
            found.append(Authority.create(self._trust_domain, lifetime=self._lifetime))
        if is_new or was_lost:
            return found if await self._write(secret, found) else []
        return found

    async def _write(self, secret: Object | None, authorities: Sequence[Authority]) -> bool:
        data = data_of(authorities)
        try:
            if secret is None:
                body = {"metadata": {"name": self._name}, "type": "Opaque", "data": data}
                written = await self._api.create(SECRETS, body, self._api.namespace)
            else:
                written = await self._api.replace(SECRETS, {**secret, "data": {**_others(secret), **data}})
        except ObjectConflict:
            return False  # another node was first: its authorities will arrive
        except MeshError as error:
            log.warning("cannot store the authorities", secret=self._name, error=str(error))
            return False
        self._uid = written["metadata"]["uid"]
        log.info("wrote the authorities", secret=self._name, count=len(authorities))
        return True


def data_of(authorities: Sequence[Authority]) -> dict[str, str]:
    """The data of a Secret with these authorities."""
    data = {}
    for number, authority in enumerate(authorities, 1):
        data[f"{number}.crt"] = b64encode(certificate_of(authority)).decode()
        data[f"{number}.key"] = b64encode(key_of(authority)).decode()
    return data


def authorities_in(secret: Object, trust_domain: str) -> list[Authority]:
    """The authorities in a Secret; other entries are left alone. Raises ValueError."""
    return [_authority(secret["data"], name, trust_domain) for name in _names(secret)]


def _names(secret: Object) -> list[str]:
    return sorted(entry.removesuffix(".crt") for entry in secret.get("data") or {} if entry.endswith(".crt"))


def _others(secret: Object) -> dict[str, str]:
    """Entries that do not belong to an authority."""
    ours = {f"{name}.{kind}" for name in _names(secret) for kind in ("crt", "key")}
    return {entry: value for entry, value in (secret.get("data") or {}).items() if entry not in ours}


def _authority(data: dict[str, str], name: str, trust_domain: str) -> Authority:
    key, certificate = (b64decode(data.get(f"{name}.{kind}", "")) for kind in ("key", "crt"))
    try:
        authority = authority_from(key, certificate, trust_domain)
        domain = spiffe_id_of(authority.certificate).removeprefix("spiffe://")
    except (ValueError, Refused) as error:
        raise ValueError(f"{name}.crt and {name}.key: {error}") from None
    if domain != trust_domain:
        raise ValueError(f"{name}.crt is an authority of the trust domain {domain!r}, not of {trust_domain!r}")
    return authority
