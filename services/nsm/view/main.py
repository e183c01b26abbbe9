"""`nsm view`: watches a mesh, and serves what it sees."""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from contextlib import suppress
from pathlib import Path

from nsm.chains.component import Runtime, run
from nsm.chains.core import InvalidRequest, MeshError, Tasks
from nsm.chains.identity.source import identity_from
from nsm.chains.logs import log
from nsm.chains.metrics import also
from nsm.chains.transport import Pool

from .config import OtherDomain, ViewConfig
from .history import History
from .sources import Watch
from .state import State, utc_now

_SHORTEST_TOKEN = 16
_MOST_PORTS = 64
"""How many ports are tried if those before are taken."""


def main(arguments: list[str]) -> int:
    """Watches a mesh, and serves its wires, their paths and causes: as JSON, as a stream, as a page."""
    return run("view", ViewConfig, watch, arguments)


async def watch(config: ViewConfig, runtime: Runtime) -> None:
    """Serve a view until the process is asked to stop. Raises `MeshError` if it cannot."""
    try:
        from .server import application, serving  # noqa: PLC0415 - an import that may be missing has its own error
        from .server.figures import reader  # noqa: PLC0415
    except ImportError as error:
        raise MeshError(f"`nsm view` needs the extra nsm-services[view]: {error}") from error
    history = History(utc_now, most=config.most_events, seconds=config.history)
    state = State(forwarder_service=config.forwarder_network_service_name, history=history)
    app = application(state, token=token_in(config.token_file), dashboard_origin=config.dashboard_origin)
    tls = _tls(config.cert_file, config.key_file)
    ports = _MOST_PORTS if config.next_free_port else 1
    with also(reader(state)):
        async with (
            serving(app, config.listen_on, access=runtime.access(config), tls=tls, ports=ports) as bound,
            Watch(state, runtime.pool, config.registry_url, config.managers, limits=config.limits),
            Tasks("view") as tasks,
        ):
            for each in config.other_domains:
                tasks.spawn(_watch_also(each, state, config), name=f"domain of {each.registry_url}")
            log.info("ready", listen_on=bound)
            await runtime.stopping.wait()


async def _watch_also(domain: OtherDomain, state: State, config: ViewConfig) -> None:
    """Watch one more domain, with an identity there."""
    source = identity_from(domain.workload_api, token_lifetime=config.max_token_lifetime)
    async with (
        source as identity,
        Pool(identity, limits=config.limits) as pool,
        Watch(state, pool, domain.registry_url, domain.managers, limits=config.limits),
    ):
        await asyncio.get_running_loop().create_future()


def token_in(file: str) -> str:
    """The token in `file`, which is made if it does not exist; nothing without a file.

    Raises `InvalidRequest` if it cannot be read or made, or contains a weak token.
    """
    if not file:
        return ""
    try:
        _make_token(file)
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"NSM_TOKEN_FILE={file} cannot be read: {error}") from None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        told = f"expected one word of at least {_SHORTEST_TOKEN} printable ASCII characters"
        raise InvalidRequest(f"NSM_TOKEN_FILE={file} contains no token: {told}")
    return token


def _make_token(file: str) -> None:
    with suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as made:
            made.write(f"{secrets.token_hex(16)}\n")


def _tls(cert_file: str, key_file: str) -> ssl.SSLContext | None:
    if not cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"NSM_CERT_FILE={cert_file} with NSM_KEY_FILE={key_file}: {error}") from None
    return context
