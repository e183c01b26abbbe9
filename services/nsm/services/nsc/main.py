"""Clients: ask for wires on behalf of a workload; `nsm nsc` keeps them, `nsm nsc-init` asks once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from nsm.apis import codec
from nsm.apis.connection import Connection, ConnectionEventType, MonitorScopeSelector, PathSegment, State
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.component import Runtime, run
from nsm.chains.composed import client
from nsm.chains.config import duration, flag, items, not_yet, pairs, text, url, variable
from nsm.chains.core import (
    Backoff,
    Begin,
    Call,
    Chain,
    Element,
    InvalidRequest,
    MeshError,
    merge_with_returned,
    reselect_everything,
)
from nsm.chains.elements.accept_dns import AcceptDns, AcceptedDns
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.client_excluded_prefixes import ClientExcludedPrefixes
from nsm.chains.elements.client_info import ClientInfo
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.dns_context import DnsContextClient
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.underlay import Underlay
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection
from nsm.chains.model.dns import is_server
from nsm.chains.model.networks import Networks
from nsm.chains.model.nsurl import NsUrl, check_interfaces, check_mechanisms, parse_groups, parse_strict_nsurl
from nsm.chains.model.values import read_number
from nsm.chains.policy import ClientPolicies
from nsm.chains.transport import RemoteMonitor, RemoteNetworkService
from nsm.services.dns.resolv_conf import copy_if_missing
from nsm.services.dns.resolver import LocalResolver
from nsm.services.networks import EVERYTHING, accepted

from .ready_file import ReadyFile, TellReady, waits

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
_HEAD_START = 3.0
"""Seconds that a wire waits at most for the first attempt of the one before it."""
_LARGEST_PORT = 65535
INFO_LABELS = ("nodeName", "podName", "clusterName")


def _wishes(value: str) -> tuple[NsUrl, ...]:
    wishes = tuple(parse_strict_nsurl(item) for item in items(value))
    check_mechanisms(wishes, {KERNEL})
    check_interfaces(wishes)
    return wishes


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not is_server(host) or (number := read_number(port, _LARGEST_PORT)) is None:
        raise ValueError("expected an address and a port such as 127.0.0.1:53 or [::1]:53")
    return host, number


def _accepted_dns(value: str) -> AcceptedDns:
    return AcceptedDns.parse(items(value))


@dataclass(frozen=True, kw_only=True)
class NscConfig(ClientPolicies):
    """What to ask for, and whom."""

    name: str = variable("nsc", text, "the name of this client's path segment; unique in the mesh")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    dial_timeout: float = variable("5s", duration, "how long connecting to the manager may take")
    request_timeout: float = variable("15s", duration, "how long one request may take")
    labels: dict[str, str] = variable("", pairs, "labels of all connections, key:value,..; a URL's own win")
    mechanism: str = variable("kernel", text, "accepted for compatibility; the URLs say which")
    network_services: tuple[NsUrl, ...] = variable("", _wishes, "kernel://service/interface?label=value,..")
    awareness_groups: tuple[tuple[NsUrl, ...], ...] = variable(
        "", parse_groups, "wires that may have the same addresses: [url,url],[url]"
    )
    accept_routes: Networks = variable(
        EVERYTHING, accepted, "prefixes that endpoints may have reached by wires; never those of other interfaces"
    )
    accept_dns: AcceptedDns = variable(
        "*",
        _accepted_dns,
        "DNS that endpoints may tell: servers by prefixes, search domains with all below them; *: any",
    )
    local_dns_server_enabled: bool = variable("true", flag, "look names up where wires say, if any says so")
    local_dns_server_address: tuple[str, int] = variable("127.0.0.1:53", _address, "where names are looked up then")
    resolv_conf_path: str = variable("/etc/resolv.conf", text, "what leads there, changed while a wire brings DNS")
    resolv_conf_from: str = variable("", text, "the file that is copied there first, if there is none; empty: none")
    ready_file: str = variable(
        "", text, "a file that is there while the client has all its wires, and their names; empty: none"
    )
    liveness_check_enabled: bool = variable("true", flag, "accepted; there is no healing yet")
    liveness_check_interval: str = not_yet("200ms", "healing")
    liveness_check_timeout: str = not_yet("1s", "healing")


@dataclass(frozen=True, kw_only=True)
class NscInitConfig(ClientPolicies):
    """What to ask for, and whom."""

    name: str = variable("cmd-nsc-init", text, "the name of this client's path segment; unique in the mesh")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    dial_timeout: float = variable("5s", duration, "how long connecting to the manager may take")
    request_timeout: float = variable("15s", duration, "how long one request may take")
    labels: dict[str, str] = variable("", pairs, "labels of all connections, key:value,..; a URL's own win")
    network_services: tuple[NsUrl, ...] = variable("", _wishes, "kernel://service/interface?label=value,..")
    awareness_groups: tuple[tuple[NsUrl, ...], ...] = variable(
        "", parse_groups, "wires that may have the same addresses: [url,url],[url]"
    )
    accept_routes: Networks = variable(
        EVERYTHING, accepted, "prefixes that endpoints may have reached by wires; never those of other interfaces"
    )
    resolv_conf_path: str = variable("/etc/resolv.conf", text, "where the next variable's file is copied to")
    resolv_conf_from: str = variable("", text, "the file that is copied there first, if there is none; empty: none")


def main(arguments: list[str]) -> int:
    """A client that keeps its wires until it is stopped."""
    return run("nsc", NscConfig, _keep, arguments, waits=lambda config, why: waits(config.ready_file, why))


def main_init(arguments: list[str]) -> int:
    """A client that asks for its wires and exits."""
    return run("nsc-init", NscInitConfig, _connect_once, arguments)


async def _keep(config: NscConfig, runtime: Runtime) -> None:
    copy_if_missing(config.resolv_conf_from, config.resolv_conf_path)
    begin, wires = Begin(merge=merge_with_returned), _ids(config)
    with ReadyFile(config.ready_file, wires) as ready_file:
        more = [TellReady(ready_file), *_dns(config, ready_file)]
        async with _chain(config, runtime, begin, more, refresh=True) as chain:
            await _connect_all(config, runtime, chain)
            if not runtime.stopping.is_set():
                ready_file.begin()
                log.info("ready", connections=len(config.network_services))
            await runtime.stopping.wait()
            for error in await begin.close_all():
                log.warning("closing failed", error=str(error))


async def _connect_once(config: NscInitConfig, runtime: Runtime) -> None:
    copy_if_missing(config.resolv_conf_from, config.resolv_conf_path)
    async with _chain(config, runtime, Begin(merge=merge_with_returned), [], refresh=False) as chain:
        await _connect_all(config, runtime, chain)
    if runtime.stopping.is_set():
        raise InvalidRequest("stopped before all wires were there")


def _dns(config: NscConfig, ready_file: ReadyFile) -> list[Element]:
    if not config.local_dns_server_enabled:
        return []

    def tell(fault: str) -> None:
        if fault:
            ready_file.lacks("names", fault)
        else:
            ready_file.has("names")

    resolver = LocalResolver(*config.local_dns_server_address, path=config.resolv_conf_path, tell=tell)
    resolver.recover()
    return [DnsContextClient(resolver), AcceptDns(config.accept_dns)]


def _chain(
    config: NscConfig | NscInitConfig, runtime: Runtime, begin: Begin, more: Sequence[Element], *, refresh: bool
) -> Chain:
    info = dict(zip(INFO_LABELS, (config.node_name, config.pod_name, config.cluster_name), strict=True))
    kernel = KernelClient()
    return client(
        config.name,
        [
            ClientInfo(info),
            kernel,
            ClientExcludedPrefixes(config.awareness_groups),
            AcceptRoutes(config.accept_routes, Underlay(wires=kernel.names)),
            SendDescriptors(),
            *more,
        ],
        RemoteNetworkService(runtime.pool, timeout=config.request_timeout),
        url=config.connect_to,
        refresh=refresh,
        begin=begin,
        policies=config.client_policies,
        limits=config.limits,
    )


def _ids(config: NscConfig | NscInitConfig) -> list[str]:
    """The ids of the connections, in the order of the URLs."""
    return [f"{config.name}-{number}" for number in range(len(config.network_services))]


async def _connect_all(config: NscConfig | NscInitConfig, runtime: Runtime, chain: Chain) -> None:
    """Ask for all wires; each is asked for again until it is there or the process is to stop.

    The first time in their order, so that endpoints with the same prefixes give the same addresses each time; one that
    takes long holds the others up for `_HEAD_START` only.
    """
    if not config.network_services:
        log.warning("there is nothing to do: NSM_NETWORK_SERVICES is empty")
    ids, tried = _ids(config), [asyncio.Event() for _ in config.network_services]

    async def in_turn(number: int, wish: NsUrl) -> None:
        if number:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START):
                    await tried[number - 1].wait()
        await _connect(config, runtime, chain, wish, ids[number], tried[number])

    asking = [asyncio.ensure_future(in_turn(number, wish)) for number, wish in enumerate(config.network_services)]
    everything = asyncio.ensure_future(_all(asking))
    stopping = asyncio.ensure_future(_set(runtime.stopping))
    try:
        await asyncio.wait([everything, stopping], return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            everything.result()
    finally:
        stopping.cancel()
        everything.cancel()
        await asyncio.gather(*asking, stopping, everything, return_exceptions=True)


async def _all(asking: Sequence[asyncio.Future[None]]) -> None:
    await asyncio.gather(*asking)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _connect(
    config: NscConfig | NscInitConfig,
    runtime: Runtime,
    chain: Chain,
    wish: NsUrl,
    connection_id: str,
    tried: asyncio.Event,
) -> None:
    backoff, began = Backoff(FIRST_PAUSE, LONGEST_PAUSE), time.perf_counter()
    survivor = await _survivor(config, runtime, connection_id, wish.mechanism.type)
    for attempt in count(1):
        try:
            connection = await chain.request(_request(config, wish, connection_id, survivor))
        except MeshError as error:
            pause = backoff.next()
            service, code = wish.network_service, error.code_name
            log.warning("no wire yet", service=service, code=code, error=str(error), again_in_s=pause)
            survivor = None
            tried.set()
        else:
            tried.set()
            _tell(connection, time.perf_counter() - began, attempt)
            return
        await asyncio.sleep(pause)


def _request(config: NscConfig | NscInitConfig, wish: NsUrl, connection_id: str, survivor: Connection | None) -> Call:
    connection = codec.clone(survivor) if survivor is not None else Connection(id=connection_id)
    labels = {**config.labels, **wish.labels}
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=[codec.clone(wish.mechanism)])
    if survivor is not None and not _is_still_wanted(survivor, wish, labels):
        reselect_everything(request)
        connection.context = None
    connection.network_service, connection.labels = wish.network_service, labels
    deadline = asyncio.get_running_loop().time() + config.request_timeout
    return Call(request, deadline=deadline)


async def _survivor(
    config: NscConfig | NscInitConfig, runtime: Runtime, connection_id: str, mechanism: str
) -> Connection | None:
    """The connection of an earlier process of this name, as the manager still has it: addresses survive with it."""
    selector = MonitorScopeSelector(path_segments=[PathSegment(id=connection_id)])
    try:
        async with asyncio.timeout(config.request_timeout):
            async for event in RemoteMonitor(runtime.pool, config.connect_to).monitor(selector):
                if event.type != ConnectionEventType.INITIAL_STATE_TRANSFER:
                    continue
                for connection in event.connections.values():
                    check_connection(connection, config.limits)
                    if _is_ours(connection, connection_id, mechanism):
                        return _as_ours(connection, connection_id)
                return None
    except (MeshError, TimeoutError) as error:
        log.info("the manager cannot be asked yet", error=str(error))
    return None


def _is_ours(connection: Connection, connection_id: str, mechanism: str) -> bool:
    path, chosen = connection.path, connection.mechanism
    begins_here = path is not None and path.index == 1 and path.path_segments[0].id == connection_id
    return begins_here and chosen is not None and chosen.type == mechanism


def _is_still_wanted(survivor: Connection, wish: NsUrl, labels: Mapping[str, str]) -> bool:
    """Whether the earlier process asked for the same; else the manager closes its wire and selects anew."""
    before = {key: value for key, value in survivor.labels.items() if key in labels or key not in INFO_LABELS}
    name = survivor.mechanism.parameters.get(INTERFACE_NAME) if survivor.mechanism else None
    same_name = wish.interface in {"", name}
    return survivor.network_service == wish.network_service and before == labels and same_name


def _as_ours(connection: Connection, connection_id: str) -> Connection:
    """The manager's view of the connection, seen from the path's first segment; that it may be down is to change."""
    connection.id, connection.state = connection_id, State.UP
    if connection.path is not None:
        connection.path.index = 0
    return connection


def _tell(connection: Connection, seconds: float, attempts: int) -> None:
    mechanism, context = connection.mechanism, connection.context
    ip = context.ip_context if context else None
    passed = connection.path.path_segments[1:] if connection.path else []
    log.info(
        "wire up",
        connection=connection.id,
        service=connection.network_service,
        endpoint=connection.network_service_endpoint_name,
        path=[segment.name for segment in passed],
        interface=mechanism.parameters.get(INTERFACE_NAME) if mechanism else None,
        addresses=ip.src_ip_addrs if ip else None,
        ms=round(seconds * 1000, 1),
        attempts=attempts,
    )
