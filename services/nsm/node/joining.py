"""The host's side of joining: it verifies the domain's server by the token, and gets its first SVID."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.config.address import Address
from nsm.chains.core import InvalidRequest, Refused, TimedOut, Unavailable
from nsm.chains.identity import presented_chain, spiffe_id_of, verify_chain
from nsm.services.identity.joining import message
from nsm.services.identity.joining.token import JoinToken, fingerprint, issuer_id, node_id

from .state import Membership, bundles_from, svid_from

TIMEOUT = 15.0
"""Seconds that one exchange may take."""


async def join(token: JoinToken, key: ec.EllipticCurvePrivateKey) -> Membership:
    """Exchange a token for the first SVID of `key`.

    Raises `Refused` if the server is not the one that the token names, or if it refuses the token, and `Unavailable`.
    """
    claim = {"node": token.node, "secret": token.secret, "trust_domain": token.trust_domain}
    answer = await exchange(
        token.address,
        _pinning_context(),
        {"join": claim, "requests": {"": request_for(key)}},
        lambda connection: _check_pinned(connection, token),
    )
    return membership_from(answer, "", key, token.address, node_id(token.trust_domain, token.node))


def request_for(key: ec.EllipticCurvePrivateKey) -> str:
    """A request for a certificate of `key` (PKCS#10, PEM); the server chooses the names in it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def membership_from(
    answer: Mapping[str, Any], path: str, key: ec.EllipticCurvePrivateKey, address: Address, spiffe_id: str
) -> Membership:
    """What an answer says, with the SVID for `path`, which must be `spiffe_id`. Raises `InvalidRequest`."""
    try:
        svid = svid_from(message.texts(answer.get("chains"), "chains")[path], key)
        bundles = bundles_from(message.texts(answer.get("bundles"), "bundles"))
        settings = message.texts(answer.get("settings"), "settings")
        if svid.spiffe_id != spiffe_id:
            raise ValueError(f"it issued {svid.spiffe_id}, not {spiffe_id}")
    except (ValueError, KeyError) as error:
        raise InvalidRequest(f"the answer of {address} cannot be used: {error}") from None
    return Membership(svid, bundles, address, settings)


async def exchange(
    address: Address, context: ssl.SSLContext, request: dict[str, Any], check: Callable[[ssl.SSLObject], None]
) -> dict[str, Any]:
    """Send one request, after `check` has accepted the server. Raises `Unavailable`, `TimedOut` and what it answers."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=address.host, limit=message.LARGEST
            )
            try:
                check(writer.get_extra_info("ssl_object"))
                await message.send(writer, request)
                answer = await message.receive(reader)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise TimedOut(f"{address} does not answer") from None
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"the server at {address} has no certificate by an authority that this host trusts "
            f"({error.verify_message}): if the authority of its domain was replaced, the host has to join with a new "
            "token"
        ) from None
    except ssl.SSLError as error:
        raise Refused(f"no TLS with {address}: {error.reason or error}") from None
    except OSError as error:
        raise Unavailable(f"{address} cannot be reached: {error.strerror or error}") from None
    message.raise_if_error(answer)
    return answer


def _pinning_context() -> ssl.SSLContext:
    """TLS without known authorities: the chain is checked before anything is sent, by the token's fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([message.ALPN])
    return context


def _check_pinned(connection: ssl.SSLObject, token: JoinToken) -> None:
    """Raises `Refused` unless the server's SVID is the issuer's, by the very authority that the token names."""
    leaf, *others = presented_chain(connection)
    authority = next((each for each in others if fingerprint(each) == token.fingerprint), None)
    if authority is None:
        raise Refused(
            f"the server at {token.address} is not that of the token: its authority has another fingerprint. Either "
            f"the authority of {token.trust_domain!r} has changed since (`nsm identity token {token.node}` makes a new "
            "token), or another server answers there. The token was not sent"
        )
    found = spiffe_id_of(leaf)
    verify_chain([leaf], [authority], found)
    if found != issuer_id(token.trust_domain):
        raise Refused(f"the server at {token.address} is {found}, not {issuer_id(token.trust_domain)}")
