"""The server's certificate, which can be replaced while it serves."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass

from cryptography import x509

from nsm.chains.identity import load_chain
from nsm.chains.logs import log


@dataclass(frozen=True)
class Chain:
    """A certificate with its chain and its key."""

    context: ssl.SSLContext
    leaf: x509.Certificate

    @classmethod
    def read(cls, pem: bytes) -> Chain:
        """From the chain, leaf first, and the key. Raises ValueError if they cannot be used."""
        context = _context()
        try:
            leaf = x509.load_pem_x509_certificates(pem)[0]
            load_chain(context, pem)
        except ssl.SSLError as error:
            raise ValueError(f"the key does not belong to the certificate ({error.reason or error})") from None
        return cls(context, leaf)


class ServerCertificate:
    """Presents the newest certificate in each handshake; open connections keep theirs.

    `host` is the name that the API server uses: it rejects a certificate without it.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._shown: Chain | None = None
        self.context = _context()
        self.context.sni_callback = self._choose

    def show(self, chain: Chain) -> None:
        """Present `chain` from now on; logs an error if the API server will reject it."""
        self._shown = chain
        expires = chain.leaf.not_valid_after_utc.isoformat()
        if fault := self.fault():
            log.error("the API server will reject this certificate", reason=fault, expires=expires)
        else:
            log.info("certificate", expires=expires)

    @property
    def expires(self) -> datetime.datetime | None:
        """When the presented certificate expires; None if there is none."""
        return self._shown.leaf.not_valid_after_utc if self._shown is not None else None

    def fault(self) -> str:
        """Why the API server would reject the certificate, in one line; empty if it would not."""
        if self._shown is None:
            return "there is no certificate yet"
        leaf = self._shown.leaf
        if leaf.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
            return f"the certificate expired at {leaf.not_valid_after_utc.isoformat()}"
        if not any(_covers(name, self._host) for name in _dns_names(leaf)):
            return f"the certificate is missing the DNS name {self._host}"
        return ""

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Called in each handshake, whether or not the client names a server."""
        if self._shown is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self._shown.context
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _covers(name: str, host: str) -> bool:
    """Whether a certificate's `name` matches `host`: case-insensitive; `*` is any first label (RFC 6125 6.4)."""
    name, host = name.lower(), host.lower()
    return name in (host, f"*.{host.partition('.')[2]}")
