"""The identity of this process: TLS contexts, verified peers, tokens."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import ClientToken, Peer, Refused, Unavailable

from .pem import load_chain
from .svid import Svid, spiffe_id_of, trust_domain_of

Bundles = Mapping[str, Sequence[x509.Certificate]]
"""The authorities of each trusted trust domain, including our own."""

_RENEWED = 0.75
"""Part of an SVID's life by which it should have been renewed."""
_REUSE = 20
"""A token is used for this part of its lifetime; then a new one is signed."""


@dataclass(frozen=True)
class _Current:
    """One generation of the identity: an SVID, bundles, and the TLS contexts made from them."""

    svid: Svid
    bundles: Bundles
    server: ssl.SSLContext
    client: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class _Signed:
    """One of our tokens, when it expires, and when a new one is signed (seconds since the epoch)."""

    token: ClientToken
    expires: float
    again: float


class Identity:
    """The identity of this process; `update` rotates it while it is in use.

    New connections use the newest generation. A connection that was made with an older one stays valid: the peer was
    verified when it was made, and its tokens are signed with that generation's key, which is the one that the peer
    knows. That SVID expires eventually, so the transport switches to new connections after a rotation.
    """

    def __init__(self, *, token_lifetime: float = 600.0) -> None:
        self.generation = 0
        self.token_lifetime = token_lifetime
        """The longest lifetime of our tokens, and the longest that is accepted from peers, in seconds."""
        self.is_source_away = False
        """Whether the Workload API does not answer: set by what follows it."""
        self.watchers: set[Callable[[], None]] = set()
        """Called after each rotation."""
        self._current: _Current | None = None
        self._shown: WeakKeyDictionary[ssl.SSLContext, Svid] = WeakKeyDictionary()
        self._tokens: dict[tuple[str, int], _Signed] = {}

    @property
    def spiffe_id(self) -> str:
        """Our SPIFFE ID."""
        return self._now.svid.spiffe_id

    @property
    def svid(self) -> Svid:
        """Our SVID."""
        return self._now.svid

    @property
    def bundles(self) -> Bundles:
        """The authorities that we trust, by trust domain."""
        return self._now.bundles

    def update(self, svid: Svid, bundles: Bundles) -> None:
        """Use a new SVID and new bundles from now on."""
        authorities = _der([authority for bundle in bundles.values() for authority in bundle])
        server = _context(ssl.PROTOCOL_TLS_SERVER, svid, authorities)
        client = _context(ssl.PROTOCOL_TLS_CLIENT, svid, authorities)
        self._current = _Current(svid, dict(bundles), server, client)
        self._shown[server] = self._shown[client] = svid
        now = time.time()
        self._tokens = {key: signed for key, signed in self._tokens.items() if signed.expires > now}
        self.generation += 1
        for watcher in list(self.watchers):
            watcher()

    def server_context(self) -> ssl.SSLContext:
        """For accepting connections; requires a certificate from the peer."""
        return self._now.server

    def client_context(self) -> ssl.SSLContext:
        """For making connections."""
        return self._now.client

    def verify(self, connection: ssl.SSLObject) -> Peer:
        """The peer, after the handshake. Raises `Refused`.

        TLS accepts the authorities of all trust domains. The chain is verified once more against those of the
        peer's own domain, so that no domain can issue identities of another.
        """
        try:
            chain = presented_chain(connection)
            spiffe_id = spiffe_id_of(chain[0])
        except ValueError as error:
            raise Refused(f"the peer's certificate cannot be parsed: {error}") from None
        domain = trust_domain_of(spiffe_id)
        bundle = self.bundles.get(domain)
        if not bundle:
            raise Refused(f"{spiffe_id} is of trust domain {domain!r}, which is not federated with ours")
        verify_chain(chain, bundle, spiffe_id)
        return Peer(spiffe_id, chain[0].public_bytes(Encoding.DER), self._shown.get(connection.context))

    def has_rotated_since(self, peer: Peer | None) -> bool:
        """Whether our SVID has been rotated since `peer` saw it."""
        return peer is not None and isinstance(peer.seen, Svid) and peer.seen is not self.svid

    def is_cut_off(self) -> bool:
        """Whether identities are not renewed here as they should be, our own and, by that, perhaps those of peers.

        Issuers renew at half of an SVID's life.
        """
        leaf = self.svid.leaf
        begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        return self.is_source_away or time.time() > begins + (ends - begins) * _RENEWED

    def would_verify(self, peer: Peer) -> bool:
        """Whether the certificate of `peer`, which may have expired, was issued by an authority that is trusted now.

        One that came with intermediates is not: they are not kept.
        """
        leaf, bundle = peer.certificate, self.bundles.get(trust_domain_of(peer.spiffe_id))
        try:
            verify_chain([leaf], bundle or [], peer.spiffe_id, at=leaf.not_valid_before_utc)
        except (Refused, ValueError):
            return False
        return True

    def token(self, peer: Peer | None = None, *, audience: str = "") -> ClientToken:
        """A token (JWT, ES256) for `peer`: its subject is us, its audience the peer, and it has an expiry.

        It is signed with the key that `peer` saw when its connection was made, or with the newest one. `audience` is
        set if the token is for a component other than `peer`.
        """
        now, svid = time.time(), self.svid
        if peer is not None and isinstance(peer.seen, Svid):
            svid = peer.seen
        key = audience or (peer.spiffe_id if peer else ""), svid.leaf.serial_number
        signed = self._tokens.get(key)
        if signed is None or now >= signed.again:
            signed = self._tokens[key] = self._sign(svid, key[0], now)
        if peer is not None and peer.expires < signed.expires:
            return ClientToken(signed.token.token, Timestamp.from_seconds(peer.expires))
        return signed.token

    def _sign(self, svid: Svid, audience: str, now: float) -> _Signed:
        expires = min(now + self.token_lifetime, svid.expires)
        claims: dict[str, object] = {"sub": svid.spiffe_id, "exp": int(expires)}
        if audience:
            claims["aud"] = [audience]
        token = ClientToken(jwt.encode(claims, svid.key, algorithm="ES256"), Timestamp.from_seconds(expires))
        return _Signed(token, expires, now + (expires - now) / _REUSE)

    @property
    def _now(self) -> _Current:
        if self._current is None:
            raise Unavailable("this process has no identity yet: the SPIFFE Workload API has not answered")
        return self._current


def _context(protocol: int, svid: Svid, authorities: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.load_verify_locations(cadata=authorities)
    load_chain(context, svid.pem())
    return context


def _der(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def presented_chain(connection: ssl.SSLObject) -> list[x509.Certificate]:
    """The leaf and the intermediates that the peer sent; not verified here. Raises `Refused` if there are none."""
    if hasattr(connection, "get_unverified_chain"):  # Python 3.13
        sent = connection.get_unverified_chain()
    else:
        certificates = connection._sslobj.get_unverified_chain() or []  # type: ignore[attr-defined]
        sent = [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in certificates]
    if not sent:
        raise Refused("the peer presented no certificate")
    return [x509.load_der_x509_certificate(der) for der in sent]


def verify_chain(
    chain: Sequence[x509.Certificate],
    bundle: Sequence[x509.Certificate],
    spiffe_id: str,
    *,
    at: datetime.datetime | None = None,
) -> None:
    """Check that a leaf and its intermediates were issued by `bundle`, now or at the time `at`. Raises `Refused`."""
    leaf, *intermediates = chain
    if _is_authority(leaf):
        raise Refused(f"{spiffe_id}: the certificate is an authority's; a workload's SVID is a leaf")
    any_extension = verification.ExtensionPolicy.permit_all()
    authority = any_extension.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    builder = verification.PolicyBuilder().store(verification.Store(list(bundle)))
    builder = builder.extension_policies(ca_policy=authority, ee_policy=any_extension)
    if at is not None:
        builder = builder.time(at)
    try:
        builder.build_client_verifier().verify(leaf, intermediates)
    except verification.VerificationError as error:
        raise Refused(f"{spiffe_id} was not issued by its own trust domain: {error}") from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
