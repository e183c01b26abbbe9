"""The bundles of the trust domains that this one is federated with, followed at their sources.

| source | |
| --- | --- |
| `/path` | a file: PEM, or a SPIFFE bundle (JSON); read again when it changes |
| `https://host:port/path` | a SPIFFE bundle endpoint, authenticated by the web's authorities (profile https_web) |
| `https://host:port/path#spiffe://domain/id` | one whose certificate is an SVID with that id (profile https_spiffe) |

With several sources the first ones are for the beginning: profile https_spiffe needs a bundle to authenticate by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from nsm.chains.config import items
from nsm.chains.config.watched_file import Watch
from nsm.chains.core import Backoff, Refused, Tasks
from nsm.chains.identity import trust_domain_of
from nsm.chains.logs import log

from .bundle_document import LARGEST, Bundle, from_file

LOOK, SHORTEST, USUAL, LONGEST = 0.5, 1.0, 300.0, 3600.0
"""Seconds between looks at a file, and between queries of an endpoint: at least, without its hint, and at most."""


@dataclass(frozen=True)
class Source:
    """Where a bundle is: a file's path, or a URL and the SPIFFE ID that its server shows (empty: none)."""

    path: str = ""
    url: str = ""
    spiffe_id: str = ""

    def __str__(self) -> str:
        return self.path or self.url


@dataclass(frozen=True)
class Federation:
    """The sources of the bundles of other trust domains, by domain."""

    sources: Mapping[str, tuple[Source, ...]]

    @classmethod
    def parse(cls, value: str) -> Federation:
        """Read ``domain=SOURCE|SOURCE,domain=SOURCE``. Raises ValueError that names the invalid part."""
        found: dict[str, tuple[Source, ...]] = {}
        for item in items(value):
            domain, equals, sources = item.partition("=")
            if not equals or not sources or not _is_domain(domain):
                raise ValueError(f"{item!r}: expected {_EXAMPLE}")
            if domain in found:
                raise ValueError(f"{domain!r} is given twice; put | between its sources")
            found[domain] = tuple(map(_source, sources.split("|")))
        return cls(found)


_EXAMPLE = "domain=/path/bundle.pem or domain=https://host:port/path#spiffe://domain/id"


def _is_domain(text: str) -> bool:
    try:
        return trust_domain_of(f"spiffe://{text}/x") == text
    except Refused:
        return False


def _source(text: str) -> Source:
    if text.startswith("/"):
        return Source(path=text)
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"{text!r} is neither a path nor an https:// URL; expected {_EXAMPLE}")
    if parts.fragment:
        try:
            trust_domain_of(parts.fragment)
        except Refused as error:
            raise ValueError(str(error)) from None
    return Source(url=parts._replace(fragment="").geturl(), spiffe_id=parts.fragment)


class Federated:
    """The bundles of other trust domains; `on_change` is called whenever one has changed.

    A domain whose bundle was never read is not trusted, and one that can no longer be read keeps the last: both are
    logged. As an async context manager, it follows the sources.
    """

    def __init__(self, federation: Federation, on_change: Callable[[], None]) -> None:
        self._federation, self._on_change = federation, on_change
        self.bundles: dict[str, tuple[x509.Certificate, ...]] = {}
        self._told: dict[Source, str] = {}
        self._tasks = Tasks("bundles of other trust domains")

    async def __aenter__(self) -> Federated:
        for domain, sources in self._federation.sources.items():
            for source in sources:
                if source.path:
                    self._look(domain, source)
            self._tasks.spawn(self._follow(domain, sources), name=f"bundle of {domain}")
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._tasks.aclose()

    async def _follow(self, domain: str, sources: Sequence[Source]) -> None:
        """Follow the URL if there is one, else the file; a file beside a URL counts until the URL has answered."""
        at = next((each for each in sources if each.url), None)
        if at is None:
            await self._follow_files(domain, sources)
            return
        backoff = Backoff(SHORTEST, USUAL)
        while True:
            try:
                bundle = await self._fetch(domain, at)
            except (OSError, ValueError, TimeoutError) as error:
                self._tell(domain, at, str(error) or type(error).__name__)
                if domain not in self.bundles:
                    for source in (each for each in sources if each.path):
                        self._look(domain, source)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._use(domain, at, bundle)
            await asyncio.sleep(min(max(float(bundle.refresh_hint) or USUAL, SHORTEST), LONGEST))

    async def _follow_files(self, domain: str, sources: Sequence[Source]) -> None:
        watches = [(source, Watch(source.path)) for source in sources]
        while True:
            for source, watch in watches:
                if watch.has_changed():
                    self._look(domain, source)
            await asyncio.sleep(LOOK if domain in self.bundles else LOOK / 5)

    async def _fetch(self, domain: str, source: Source) -> Bundle:
        from .bundle_endpoint import fetch  # noqa: PLC0415 - only a URL needs the library

        trusted = self.bundles.get(trust_domain_of(source.spiffe_id), ()) if source.spiffe_id else ()
        if source.spiffe_id and not trusted:
            raise ValueError(
                f"no bundle to authenticate {source.spiffe_id} by: name a file first, {domain}=/path|https://.."
            )
        return await fetch(source.url, source.spiffe_id, trusted)

    def _look(self, domain: str, source: Source) -> None:
        try:
            with Path(source.path).open("rb") as file:
                content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"it has more than {LARGEST} bytes")
            self._use(domain, source, from_file(content))
        except (OSError, ValueError) as error:
            self._tell(domain, source, str(error))

    def _use(self, domain: str, source: Source, bundle: Bundle) -> None:
        self._told.pop(source, None)
        if self.bundles.get(domain) != bundle.certificates:
            if not bundle.certificates:
                told = "a trust domain has no authority: none of its components is trusted"
                log.warning(told, domain=domain, source=str(source))
            self.bundles[domain] = bundle.certificates
            log.info("bundle read", domain=domain, source=str(source), authorities=len(bundle.certificates))
            self._on_change()

    def _tell(self, domain: str, source: Source, reason: str) -> None:
        if self._told.get(source) != reason:
            self._told[source] = reason
            what = "the last one stays in force" if domain in self.bundles else "none of its components is trusted yet"
            log.warning(
                f"cannot read the bundle of a trust domain; {what}", domain=domain, source=str(source), reason=reason
            )
