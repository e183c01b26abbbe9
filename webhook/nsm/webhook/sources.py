"""Sources of the server's certificate, and their renewal.

A source returns its `authorities`, and `renew` presents a newer certificate. Between the two, the caller makes
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
"""Seconds for which authorities that were removed from a file are still returned: kubelets apply changes of a Secret
a minute or two apart, and a replica on another node presents its old certificate until then."""


class Source(Protocol):
    """A source of certificates; one is presented from the start."""

    def authorities(self) -> str:
        """The authorities of the current certificate and of the next one, PEM."""

    def renew(self) -> None:
        """Present a newer certificate, if its authority has been returned before."""


class OwnAuthority:
    """Self-made certificates, each with its own authority; replaced after two thirds of `lifetime`."""

    def __init__(self, certificate: ServerCertificate, service: str, namespace: str, lifetime: float) -> None:
        self._certificate, self._service, self._namespace = certificate, service, namespace
        self._lifetime = lifetime
        self._shown = self._make()
        self._next: OwnCertificate | None = None
        certificate.show(Chain.read(self._shown.pem))

    def authorities(self) -> str:
        """The authority of the certificate, and that of its successor, which is created in time.

        Also while the API server is unreachable, because an expired certificate would be useless afterwards.
        """
        if time.time() >= self._made + self._lifetime * 2 / 3:
            self._next = self._make()
        return self._shown.authority + (self._next.authority if self._next else "")

    def renew(self) -> None:
        """Present the next certificate, if there is one."""
        if self._next is not None:
            self._certificate.show(Chain.read(self._next.pem))
            self._shown, self._next = self._next, None

    def _make(self) -> OwnCertificate:
        self._made = time.time()
        return issue_certificate(self._service, self._namespace, datetime.timedelta(seconds=self._lifetime))


class Files:
    """Certificate and key in files, and their authorities, if they are registered, in another.

    Previous authorities are returned for a while, because replicas do not see changes at the same time.
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
        """The current content of the file of authorities, and its recent previous content."""
        self._chain.look()  # before the authorities, which must be at least as new
        self._authorities.look()
        if time.monotonic() >= self._changed + _KEPT:
            self._before = ""
        return f"{self._before}\n{self._bundle}"

    def renew(self) -> None:
        """Present the certificate that was read with the authorities."""
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
            raise ValueError("a certificate in it is invalid") from None
        self._before, self._bundle = self._bundle, content.decode(errors="replace")
        self._changed = time.monotonic()


def show_svid(certificate: ServerCertificate, identity: Identity) -> None:
    """Present the SVID of this process, and its successors; SPIRE registers its authorities with the API server."""

    def show() -> None:
        certificate.show(Chain.read(identity.svid.pem()))

    identity.watchers.add(show)
    show()
