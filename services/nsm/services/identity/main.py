"""Serves the SPIFFE Workload API to the processes of one machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from nsm.chains.component import run_plain
from nsm.chains.config import Common, duration, items, text, variable
from nsm.chains.core import InvalidRequest
from nsm.chains.identity import Authority
from nsm.chains.logs import log
from nsm.chains.transport import SocketAccess

from .issuer import Entries, Issuer
from .sockets import Sockets


def _entries(value: str) -> Entries:
    return Entries.parse(items(value))


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(Common):
    """Who gets which identity, and where to ask."""

    name: str = variable("identity", text, "the name in logs")
    trust_domain: str = variable("local.mesh", text, "the trust domain of all identities")
    entries: Entries = variable("", _entries, "socket:/path=spiffe://..,uid:1000=spiffe://..,pid:42=spiffe://..")
    entries_file: str = variable("", text, "a file with more of them, one a line; SIGHUP has it read again")
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
    entries = _all_entries(config)
    issuer = Issuer(_authority(config), entries, lifetime=config.svid_lifetime, federated=federated)
    access = SocketAccess(mode=config.socket_mode, group=config.socket_group)
    async with Sockets(issuer.methods, name=config.name, access=access) as sockets:
        await sockets.serve(_paths(config, entries))
        if not len(sockets) and not config.entries_file:
            raise InvalidRequest("nobody can ask: set NSM_ENTRIES with sockets, or NSM_LISTEN_ON")
        hangups = _hangups() if config.entries_file else None
        log.info("ready", trust_domain=config.trust_domain, sockets=len(sockets))
        while hangups is not None and await _first(hangups.get, stopping.wait):
            await _read_again(config, issuer, sockets)
        await stopping.wait()


def _paths(config: IdentityConfig, entries: Entries) -> list[str]:
    return [*entries.by_socket, *([config.listen_on.removeprefix("unix://")] if config.listen_on else [])]


def _all_entries(config: IdentityConfig) -> Entries:
    """Those of the variable, and those of the file."""
    if not config.entries_file:
        return config.entries
    try:
        lines = Path(config.entries_file).read_text().splitlines()
        return config.entries.joined(Entries.parse([line for line in map(str.strip, lines) if line]))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"NSM_ENTRIES_FILE={config.entries_file!r}: {error}") from None


async def _read_again(config: IdentityConfig, issuer: Issuer, sockets: Sockets) -> None:
    try:
        entries = _all_entries(config)
    except InvalidRequest as error:
        log.warning("the entries stay as they are", error=str(error))
        return
    issuer.entries = entries
    await sockets.serve(_paths(config, entries))
    log.info("entries read", sockets=len(sockets))


def _hangups() -> asyncio.Queue[bool]:
    """Gets an item for each SIGHUP."""
    queue: asyncio.Queue[bool] = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, queue.put_nowait, True)
    return queue


async def _first(one: Callable[[], Coroutine[Any, Any, bool]], other: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
    """Wait for the first of two; whether it was `one`."""
    tasks = [asyncio.ensure_future(one()), asyncio.ensure_future(other())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    was_one = tasks[0].done()
    for task in tasks:
        task.cancel()
    return was_one


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
