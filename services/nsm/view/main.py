"""`nsm view`: watches a mesh, and serves what it sees."""

from __future__ import annotations

import ssl
from pathlib import Path

from nsm.chains.component import Runtime, run
from nsm.chains.core import InvalidRequest, MeshError
from nsm.chains.logs import log
from nsm.chains.metrics import also

from .config import ViewConfig
from .history import History
from .sources import Watch
from .state import State, utc_now

_SHORTEST_TOKEN = 16


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
    with also(reader(state)):
        async with (
            serving(app, config.listen_on, access=runtime.access(config), tls=tls) as bound,
            Watch(state, runtime.pool, config.registry_url, config.managers, limits=config.limits),
        ):
            log.info("ready", listen_on=bound)
            await runtime.stopping.wait()


def token_in(file: str) -> str:
    """The token in `file`, or nothing without a file. Raises `InvalidRequest` if there is none, or a weak one."""
    if not file:
        return ""
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"NSM_TOKEN_FILE={file} cannot be read: {error}") from None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        told = f"expected one word of at least {_SHORTEST_TOKEN} printable ASCII characters"
        raise InvalidRequest(f"NSM_TOKEN_FILE={file} contains no token: {told}")
    return token


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
