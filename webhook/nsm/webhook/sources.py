"""Where the server's certificate comes from, and how it is renewed.

A source tells its `authorities`, and with `renew` shows a newer certificate. Between the two whoever calls it makes
the authorities known to the API server, so that no certificate is shown before it is trusted.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol

from cryptography import x509

from nsm.chains.identity import Identity

from .certificate import Chain, ServerCertificate
from .files import FollowedFiles
from .own_certificate import OwnCertificate, issue_certificate

_KEPT = 300.0
"""Seconds that authorities which a file no longer holds are told of still: kubelets bring a Secret's change to their
nodes a minute or two apart, and a replica on another node shows what it has."""


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
        self._shown = self._make()
        self._next: OwnCertificate | None = None
        certificate.show(Chain.read(self._shown.pem))

    def authorities(self) -> str:
        """That of the certificate, and that of its successor, which is made in time.

        Also while the API server cannot be told: once it can, a certificate that has expired is of no use to it.
        """
        if time.time() >= self._made + self._lifetime * 2 / 3:
            self._next = self._make()
        return self._shown.authority + (self._next.authority if self._next else "")

    def renew(self) -> None:
        """Show the next one, if there is one."""
        if self._next is not None:
            self._certificate.show(Chain.read(self._next.pem))
            self._shown, self._next = self._next, None

    def _make(self) -> OwnCertificate:
        self._made = time.time()
        return issue_certificate(self._service, self._namespace, datetime.timedelta(seconds=self._lifetime))


class Files:
    """Certificate and key in files; their authorities, if somebody is to be told of them, in another.

    The authorities of before are told for a while with new ones: replicas do not see them at the same moment.
    """

    def __init__(self, certificate: ServerCertificate, certificate_path: str, key_path: str, bundle_path: str) -> None:
        self._certificate = certificate
        self._next: Chain | None = None
        self._before, self._bundle, self._changed = "", "", 0.0
        self._chain = FollowedFiles([certificate_path, key_path], self._take_chain)
        self._authorities = FollowedFiles([bundle_path] if bundle_path else [], self._take_bundle)
        self._chain.read()
        self._authorities.read()
        self.renew()

    def authorities(self) -> str:
        """What the file of authorities holds, and what it held a while ago."""
        self._chain.look()  # before the authorities, which are to be at least as new
        self._authorities.look()
        if time.monotonic() >= self._changed + _KEPT:
            self._before = ""
        return f"{self._before}\n{self._bundle}"

    def renew(self) -> None:
        """Show what was in the files when the authorities were told."""
        if self._next is not None:
            self._certificate.show(self._next)
        self._next = None

    def _take_chain(self, content: bytes) -> None:
        self._next = Chain.read(content)

    def _take_bundle(self, content: bytes) -> None:
        if b"CERTIFICATE" not in content:
            raise ValueError("there is no certificate in it")
        try:
            x509.load_pem_x509_certificates(content)
        except ValueError:
            raise ValueError("a certificate in it cannot be read") from None
        self._before, self._bundle = self._bundle, content.decode(errors="replace")
        self._changed = time.monotonic()


def show_svid(certificate: ServerCertificate, identity: Identity) -> None:
    """Show the SVID of this process, and each that follows it; who trusts it is SPIRE's to tell the API server."""

    def show() -> None:
        certificate.show(Chain.read(identity.svid.pem()))

    identity.watchers.add(show)
    show()
