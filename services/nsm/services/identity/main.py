"""Serves the SPIFFE Workload API to the processes of one machine."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from nsm.chains.component import run_plain
from nsm.chains.config import Common, duration, items, text, variable
from nsm.chains.core import InvalidRequest
from nsm.chains.identity import Authority
from nsm.chains.logs import log
from nsm.chains.transport import SocketAccess, serve_plain

from .issuer import Entries, Issuer


def _entries(value: str) -> Entries:
    return Entries.parse(items(value))


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(Common):
    """Who gets which identity, and where to ask."""

    name: str = variable("identity", text, "the name in logs")
    trust_domain: str = variable("local.mesh", text, "the trust domain of all identities")
    entries: Entries = variable("", _entries, "socket:/path=spiffe://..,uid:1000=spiffe://..,pid:42=spiffe://..")
    listen_on: str = variable("", text, "path of a socket for those who are told apart by uid or pid")
    svid_lifetime: float = variable("1h", duration, "how long an SVID is valid; a new one comes at half of it")
    authority_file: str = variable(
        "", text, "keeps the authority over restarts (PEM, key and certificate); empty: none"
    )
    federated_bundles: tuple[str, ...] = variable("", items, "trust domains to federate with: domain=/path/bundle.pem")


def main(arguments: list[str]) -> int:
    """Issues SPIFFE identities to the processes of this machine."""
    return run_plain("identity", IdentityConfig, _serve, arguments)


async def _serve(config: IdentityConfig, stopping: asyncio.Event) -> None:
    federated = dict(_bundle(text) for text in config.federated_bundles)
    issuer = Issuer(_authority(config), config.entries, lifetime=config.svid_lifetime, federated=federated)
    sockets = [*config.entries.by_socket, *([config.listen_on.removeprefix("unix://")] if config.listen_on else [])]
    if not sockets:
        raise InvalidRequest("nobody can ask: set NSM_ENTRIES with sockets, or NSM_LISTEN_ON")
    access = SocketAccess(mode=config.socket_mode, group=config.socket_group)
    async with AsyncExitStack() as stack:
        for path in sockets:
            await stack.enter_async_context(serve_plain(path, issuer.methods(path), name=config.name, access=access))
        log.info("ready", trust_domain=config.trust_domain, sockets=len(sockets))
        await stopping.wait()


def _authority(config: IdentityConfig) -> Authority:
    if not config.authority_file:
        return Authority.create(config.trust_domain)
    path = Path(config.authority_file)
    if path.exists():
        return _read_authority(path, config.trust_domain)
    authority = Authority.create(config.trust_domain)
    pem = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem + authority.certificate.public_bytes(Encoding.PEM))
    return authority


def _read_authority(path: Path, trust_domain: str) -> Authority:
    try:
        pem = path.read_bytes()
        key, certificate = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"NSM_AUTHORITY_FILE={str(path)!r} cannot be read: {error}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidRequest(f"NSM_AUTHORITY_FILE={str(path)!r}: the key does not belong to the certificate")
    return Authority(trust_domain, certificate, key)


def _bundle(text: str) -> tuple[str, list[x509.Certificate]]:
    domain, _, path = text.partition("=")
    try:
        return domain, x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"NSM_FEDERATED_BUNDLES={text!r}: {error}; expected domain=/path/bundle.pem") from None
