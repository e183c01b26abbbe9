"""Where the server's certificate comes from, and how it is renewed.

A source tells its `authorities`, and with `renew` shows a newer certificate. Between the two whoever calls it makes
the authorities known to the API server, so that no certificate is shown before it is trusted.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol

from nsm.chains.identity import Identity

from .certificate import ServerCertificate
from .files import FollowedFiles
from .selfmade import SelfMade, make


class Source(Protocol):
    """A place that certificates come from; one is shown from the beginning."""

    def authorities(self) -> str:
        """Those of the certificate that is shown and of the next one, PEM."""

    def renew(self) -> None:
        """Show a newer certificate, if there is one whose authority was told before."""


class OwnAuthority:
    """Certificates by an authority of our own, each of its own one; the next comes after two thirds of `lifetime`."""

    def __init__(self, certificate: ServerCertificate, service: str, namespace: str, lifetime: float) -> None:
        self._certificate, self._service, self._namespace = certificate, service, namespace
        self._lifetime = lifetime
        self._shown, self._next = self._make(), None
        certificate.use(self._shown.chain)

    def authorities(self) -> str:
        """That of the certificate, and that of its successor."""
        return self._shown.authority + (self._next.authority if self._next else "")

    def renew(self) -> None:
        """Once make the next one, once show it."""
        if self._next is not None:
            self._certificate.use(self._next.chain)
            self._shown, self._next = self._next, None
        elif time.time() >= self._made + self._lifetime * 2 / 3:
            self._next = self._make()

    def _make(self) -> SelfMade:
        self._made = time.time()
        return make(self._service, self._namespace, datetime.timedelta(seconds=self._lifetime))

    _next: SelfMade | None


class Files:
    """Certificate and key in files; their authorities, if somebody is to be told of them, in another.

    The authorities of before are told once more with new ones: replicas do not look at the same moment.
    """

    def __init__(self, certificate: ServerCertificate, certificate_path: str, key_path: str, bundle_path: str) -> None:
        self._before, self._bundle = "", ""
        self._chain = FollowedFiles([certificate_path, key_path], certificate.use)
        self._authorities = FollowedFiles([bundle_path] if bundle_path else [], self._take_bundle)
        self._chain.read()
        self._authorities.read()

    def authorities(self) -> str:
        """What the file of authorities holds, and what it held."""
        self._authorities.look()
        return f"{self._before}\n{self._bundle}"

    def renew(self) -> None:
        """Show what is in the files now."""
        self._before = self._bundle
        self._chain.look()

    def _take_bundle(self, content: bytes) -> None:
        if b"CERTIFICATE" not in content:
            raise ValueError("there is no certificate in it")
        self._before, self._bundle = self._bundle, content.decode(errors="replace")


def show_svid(certificate: ServerCertificate, identity: Identity) -> None:
    """Show the SVID of this process, and each that follows it; who trusts it is SPIRE's to tell the API server."""

    def show() -> None:
        certificate.use(identity.svid.pem())

    identity.watchers.add(show)
    show()
