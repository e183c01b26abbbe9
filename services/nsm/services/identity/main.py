"""Serves the SPIFFE Workload API to the processes of one machine, or to the pods of one node of a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509

from nsm.chains.component import run_plain, unless_set
from nsm.chains.config import Common, duration, flag, host_and_port, items, text, url, variable
from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest, MeshError, Refused, Tasks
from nsm.chains.identity import Svid, trust_domain_of
from nsm.chains.logs import log
from nsm.chains.policy.patterns import IdPatterns
from nsm.chains.transport import SocketAccess

from .authorities import Authorities
from .authority_file import authority_at
from .bundle_document import to_document
from .cgroups import DRIVERS
from .entries import Entries
from .federated import Federated, Federation
from .issuer import Identify, Issuer
from .joining.command import COMMANDS, JOIN_FOLDER, join_command
from .joining.server import JoinServer, joining
from .joining.store import JoinStore
from .joining.token import issuer_id, node_id
from .sockets import Sockets


def _entries(value: str) -> Entries:
    return Entries.parse(items(value))


def _join_address(value: str) -> Address | None:
    if not url(value):
        return None
    if (address := parse_address(value)).is_unix:
        raise ValueError("expected host:port or :port; nodes join over TCP")
    return address


def _cgroup_driver(value: str) -> str:
    if value and value not in DRIVERS:
        raise ValueError(f"expected {', '.join(DRIVERS)}, or nothing")
    return value


def _bundle_listen_on(value: str) -> tuple[str, int] | None:
    return host_and_port(value) if value else None


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(Common):
    """Identities and the sockets to obtain them. `NSM_PODS` requires `NODE_NAME`, and `POD_NAME` for detection."""

    name: str = variable("identity", text, "the name in logs")
    trust_domain: str = variable("local.mesh", text, "the trust domain of all identities")
    entries: Entries = variable("", _entries, "socket:/path=spiffe://.., uid:1000=spiffe://.., pid:42=spiffe://..")
    entries_file: str = variable("", text, "a file with more entries, one per line; SIGHUP reloads it")
    pods: bool = variable("false", flag, "identify the pods of this node by the API server, without entries")
    listen_on: str = variable("", text, "path of a socket for processes that are identified by uid, pid or pod")
    svid_lifetime: float = variable("1h", duration, "how long an SVID is valid; it is renewed after half of it")
    authority_file: str = variable(
        "", text, "stores the authority over restarts (PEM, key and certificate); empty: none"
    )
    authority_secret: str = variable("nsm-identity", text, "for pods: the Secret with all nodes' authorities")
    authority_lifetime: float = variable("720h", duration, "for pods: how long an authority is valid")
    cgroup_driver: str = variable(
        "", _cgroup_driver, "for pods: the kubelet's driver, systemd or cgroupfs; empty: detected"
    )
    cgroup_root: str = variable("", text, "for pods: the kubelet's --cgroup-root, such as kind's /kubelet")
    join_listen_on: Address | None = variable(
        "", _join_address, "where nodes outside the cluster join, by tokens: host:port or :port; empty: nowhere"
    )
    join_address: str = variable("", url, "the address of join_listen_on as join tokens name it; empty: this host's")
    join_folder: str = variable(JOIN_FOLDER, text, "where join tokens and the nodes that have joined are stored")
    join_registry: str = variable("", url, "the registry that nodes which join use")
    join_intermediaries: IdPatterns = variable(
        "", IdPatterns.parse, "NSM_INTERMEDIARIES of nodes which join: this domain's managers and forwarders"
    )
    node_lifetime: float = variable("24h", duration, "how long the SVID of a node that joined is valid")
    federated_bundles: Federation = variable(
        "",
        Federation.parse,
        "trust domains to federate with: domain=/path/bundle.pem or domain=https://host:port/path#id",
    )
    federated_workloads: IdPatterns = variable(
        "", IdPatterns.parse, "SPIFFE IDs that receive the bundles of other trust domains; patterns, a,b; empty: all"
    )
    bundle_file: str = variable(
        "", text, "writes the bundle of this trust domain for others (SPIFFE's JSON); empty: none"
    )
    bundle_listen_on: tuple[str, int] | None = variable(
        "", _bundle_listen_on, "where to serve the bundle over HTTPS, host:port; empty: nowhere"
    )
    bundle_endpoint_id: str = variable(
        "/nsm/identity", text, "path of the SPIFFE ID that this server shows there, which others name behind the #"
    )

    def misfits(self) -> Iterator[str]:
        """Invalid times, and variables that apply only to pods or only to other processes."""
        yield from super().misfits()
        if not self.svid_lifetime:
            yield "NSM_SVID_LIFETIME=0: expected more than 0"
        if self.join_listen_on is not None and not self.node_lifetime:
            yield "NSM_NODE_LIFETIME=0: expected more than 0"
        if self.trust_domain in self.federated_bundles.sources:
            yield f"NSM_FEDERATED_BUNDLES: {self.trust_domain!r} is this trust domain itself"
        if not _is_id(f"spiffe://{self.trust_domain}{self.bundle_endpoint_id}"):
            yield f"NSM_BUNDLE_ENDPOINT_ID={self.bundle_endpoint_id!r}: expected a path such as /nsm/identity"
        if self.pods:
            yield from self._misfits_of_pods()
        elif not (self.entries.by_socket or self.entries_file or self.listen_on or self.join_listen_on):
            yield "no socket is configured: set NSM_ENTRIES with sockets, or NSM_LISTEN_ON"

    def _misfits_of_pods(self) -> Iterator[str]:
        if not self.node_name or not self.listen_on:
            yield "NSM_PODS: NODE_NAME and NSM_LISTEN_ON are required too"
        if self.entries != Entries() or self.entries_file or self.authority_file:
            yield "NSM_PODS: entries and an authority file do not apply to pods; unset them"
        if self.authority_lifetime < 4 * self.svid_lifetime:
            yield "NSM_AUTHORITY_LIFETIME is too short: expected at least four times NSM_SVID_LIFETIME"
        if self.join_listen_on is not None and self.authority_lifetime < 4 * self.node_lifetime:
            yield "NSM_AUTHORITY_LIFETIME is too short: expected at least four times NSM_NODE_LIFETIME"


def _is_id(text: str) -> bool:
    try:
        trust_domain_of(text)
    except Refused:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Issues SPIFFE identities to the processes of this machine, or the pods of this node, and to hosts that join."""
    if arguments and arguments[0] in COMMANDS:
        return join_command(arguments)
    return run_plain("identity", IdentityConfig, _serve, arguments)


async def _serve(config: IdentityConfig, stopping: asyncio.Event) -> None:
    if config.pods:
        await unless_set(stopping, _serve_pods(config))
    else:
        await _serve_entries(config, stopping)


async def _serve_entries(config: IdentityConfig, stopping: asyncio.Event) -> None:
    entries = _all_entries(config)
    authorities = Authorities([authority_at(config.authority_file, config.trust_domain)])
    async with _issuer(config, authorities, entries.identify) as issuer, _sockets(config, issuer) as sockets:
        await sockets.serve(_paths(config, entries))
        _warn_of_ended(entries)
        hangups = _hangups() if config.entries_file else None
        log.info("ready", trust_domain=config.trust_domain, sockets=len(sockets))
        while hangups is not None and await _first(hangups.get, stopping.wait):
            entries = await _read_again(config, issuer, sockets, entries)
        await stopping.wait()


async def _serve_pods(config: IdentityConfig) -> None:
    """Serve until cancelled: waiting for the API server may take forever."""
    async with (
        _pods_of_node(config) as (authorities, identify),
        _issuer(config, authorities, identify) as issuer,
        _sockets(config, issuer) as sockets,
    ):
        await sockets.serve([_listen_on(config)])
        log.info("ready", trust_domain=config.trust_domain, node=config.node_name)
        await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _issuer(config: IdentityConfig, authorities: Authorities, identify: Identify) -> AsyncIterator[Issuer]:
    """The issuer, which follows the bundles of other domains and publishes its own, and lets nodes join."""
    async with Federated(config.federated_bundles, authorities.wake) as federated, _published(config, authorities):
        patterns = config.federated_workloads.within(config.trust_domain)
        federates = patterns.matches if patterns else lambda _: True
        async with _joined(config, authorities, federated.bundles, federates):
            yield Issuer(
                authorities,
                identify,
                lifetime=config.svid_lifetime,
                federated=federated.bundles,
                federates=federates,
                limits=config.limits,
            )


@asynccontextmanager
async def _joined(
    config: IdentityConfig,
    authorities: Authorities,
    federated: Mapping[str, Sequence[x509.Certificate]],
    federates: Callable[[str], bool],
) -> AsyncIterator[None]:
    """Let nodes join for as long as the context is open, if that is configured."""
    if config.join_listen_on is None:
        yield
        return
    store = JoinStore(config.join_folder)
    settings = {"registry": config.join_registry, "intermediaries": str(config.join_intermediaries)}
    server = JoinServer(
        authorities,
        store,
        lifetime=config.node_lifetime,
        of_workloads=config.svid_lifetime,
        settings=settings,
        federated=federated,
        federates=federates,
    )
    async with joining(server, store, authorities, config.join_listen_on, config.join_address) as where:
        log.info("nodes can join", listen_on=where)
        yield


@asynccontextmanager
async def _pods_of_node(config: IdentityConfig) -> AsyncIterator[tuple[Authorities, Identify]]:
    try:
        from .cluster import pods_of_node  # noqa: PLC0415 - outside of a cluster it is neither needed nor installed
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"NSM_PODS: {error.name} is missing; pip install 'nsm-services[k8s]'") from None
    lifetime = timedelta(seconds=config.authority_lifetime)
    async with pods_of_node(
        config.node_name,
        config.trust_domain,
        own_pod=config.pod_name,
        secret=config.authority_secret,
        authority_lifetime=lifetime,
        cgroup_driver=config.cgroup_driver,
        cgroup_root=config.cgroup_root,
    ) as found:
        yield found


def _sockets(config: IdentityConfig, issuer: Issuer) -> Sockets:
    access = SocketAccess(mode=config.socket_mode, group=config.socket_group)
    return Sockets(issuer.methods, name=config.name, access=access, limits=config.limits)


def _listen_on(config: IdentityConfig) -> str:
    return config.listen_on.removeprefix("unix://")


def _paths(config: IdentityConfig, entries: Entries) -> list[str]:
    return [*entries.by_socket, *([_listen_on(config)] if config.listen_on else [])]


def _all_entries(config: IdentityConfig) -> Entries:
    """The entries of the variable and of the file."""
    if not config.entries_file:
        return _unlike_nodes(config, config.entries)
    try:
        lines = Path(config.entries_file).read_text().splitlines()
        found = config.entries.joined(Entries.parse([line for line in map(str.strip, lines) if line]))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"NSM_ENTRIES_FILE={config.entries_file!r}: {error}") from None
    return _unlike_nodes(config, found)


def _unlike_nodes(config: IdentityConfig, entries: Entries) -> Entries:
    """The entries. Raises `InvalidRequest` if one is for the name of a node that joins, or of the server they trust."""
    reserved = node_id(config.trust_domain, ""), issuer_id(config.trust_domain)
    if config.join_listen_on is not None:
        for spiffe_id in sorted(entries.ids()):
            if spiffe_id.startswith(reserved[0]) or spiffe_id == reserved[1]:
                raise InvalidRequest(f"{spiffe_id} is for nodes that join (NSM_JOIN_LISTEN_ON), not for entries")
    return entries


async def _read_again(config: IdentityConfig, issuer: Issuer, sockets: Sockets, before: Entries) -> Entries:
    try:
        entries = _all_entries(config).following(before)
    except InvalidRequest as error:
        log.warning("the entries are unchanged", error=str(error))
        return before
    _warn_of_ended(entries)
    issuer.identify = entries.identify
    try:
        await sockets.serve(_paths(config, entries))
    except MeshError as error:
        log.warning("not all entries can be served; the next SIGHUP tries again", error=str(error))
    log.info("entries read", sockets=len(sockets))
    return entries


def _warn_of_ended(entries: Entries) -> None:
    if ended := entries.ended():
        pids = ", ".join(f"pid:{pid}" for pid in ended[:10])
        log.warning(
            "entries for processes that do not exist have no effect; remove them", entries=pids, count=len(ended)
        )


def _hangups() -> asyncio.Queue[bool]:
    """A queue with an item for each SIGHUP."""
    queue: asyncio.Queue[bool] = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, queue.put_nowait, True)
    return queue


async def _first(one: Callable[[], Coroutine[Any, Any, bool]], other: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
    """Wait for the first of two; returns whether it was `one`."""
    tasks = [asyncio.ensure_future(one()), asyncio.ensure_future(other())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    was_one = tasks[0].done()
    for task in tasks:
        task.cancel()
    return was_one


@asynccontextmanager
async def _published(config: IdentityConfig, authorities: Authorities) -> AsyncIterator[None]:
    """Publish the bundle of this trust domain for as long as the context is open."""
    hint = int(min(config.svid_lifetime / 4, _LOOK_AGAIN))

    def document() -> str:
        return to_document(authorities.bundle, sequence=authorities.version, refresh_hint=max(1, hint))

    async with AsyncExitStack() as stack:
        if config.bundle_file:
            tasks = await stack.enter_async_context(Tasks("bundle file"))
            tasks.spawn(_write_bundle(config.bundle_file, authorities, document), name="bundle file")
        if config.bundle_listen_on is not None:
            try:
                from .bundle_endpoint import serving  # noqa: PLC0415 - only an endpoint needs the library
            except ModuleNotFoundError as error:
                told = f"NSM_BUNDLE_LISTEN_ON: {error.name} is missing; pip install 'nsm-services[federation]'"
                raise InvalidRequest(told) from None
            spiffe_id, lifetime = f"spiffe://{config.trust_domain}{config.bundle_endpoint_id}", config.svid_lifetime
            own = partial(_own_svid, authorities, spiffe_id, lifetime)
            port = await stack.enter_async_context(serving(*config.bundle_listen_on, document, own, lifetime))
            log.info("the bundle is served", port=port, spiffe_id=spiffe_id)
        yield


def _own_svid(authorities: Authorities, spiffe_id: str, lifetime: float) -> Svid:
    return authorities.signing.issue(spiffe_id, lifetime=timedelta(seconds=lifetime))


async def _write_bundle(path: str, authorities: Authorities, document: Callable[[], str]) -> None:
    """Write the bundle now and whenever it changes; a failure is logged and tried again."""
    while True:
        version, text = authorities.version, document()
        try:
            _replace(Path(path), text)
        except OSError as error:
            log.warning("cannot write the bundle", path=path, error=str(error))
            await asyncio.sleep(_PAUSE)
            continue
        await authorities.changed(version)


def _replace(path: Path, text: str) -> None:
    """Replace a file so that readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


_LOOK_AGAIN, _PAUSE = 300.0, 5.0
"""Seconds after which others look at the bundle again, at most, and until a failed write is tried again."""
