"""`nsm node`: manager, forwarder and proxy of a host outside the cluster, in one process, as a node of a domain.

    workloads ── unix socket ── manager ──┬── the domain's registry
                                 │        └── proxy ── registry proxy ── other domains' registries
                             forwarder ───┬── other nodes' managers
                                 │        └── proxy ── other domains' proxies
                               wires

    workloads ── Workload API ── issuer ── the domain's `nsm identity`

All of them share one identity, one pool of channels and one event loop; they call each other as they call others.
"""

from __future__ import annotations

import asyncio
import getpass
import ipaddress
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from nsm.chains.component import Runtime, of_own_domain, run_plain, unless_set
from nsm.chains.core import Backoff, InvalidRequest, MeshError, Tasks, TimedOut, Unavailable
from nsm.chains.logs import log
from nsm.chains.policy import IdPatterns
from nsm.chains.transport import Pool, SocketAccess, parse_address
from nsm.chains.transport.urls import Address
from nsm.forwarder_kernel.main import KernelConfig, serve_kernel_forwarder
from nsm.services.identity.issuer import Issuer
from nsm.services.identity.joining.server import LIFETIME
from nsm.services.identity.joining.token import JoinToken
from nsm.services.identity.sockets import Sockets
from nsm.services.nsmgr.main import NsmgrConfig, serve_manager
from nsm.services.nsmgr_proxy.main import NsmgrProxyConfig, serve_proxy
from nsm.services.registry_proxy.main import RegistryProxyConfig, serve_registry_proxy

from .attached import Attached
from .config import NodeConfig, entries_below, part_of
from .joining import join
from .member import Member, membership_kept
from .state import Membership, State
from .status import status

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


def main(arguments: list[str]) -> int:
    """Makes a host outside the cluster a node of a domain: manager, forwarder and proxy in one process."""
    if arguments[:1] == ["status"]:
        return status(arguments[1:])
    if arguments[:1] == ["--join"] and len(arguments) == 2:
        os.environ["NSM_JOIN"], arguments = arguments[1], []
    elif arguments and arguments[0].startswith("--join="):
        os.environ["NSM_JOIN"], arguments = arguments[0].removeprefix("--join="), arguments[1:]
    elif arguments[:1] == ["--join"]:
        told = "write `nsm node --join DOMAIN`; the token is not an argument, which other users could see"
        print(f"nsm node: {told}", file=sys.stderr)
        return 2
    return run_plain("node", NodeConfig, _serve, arguments)


async def _serve(config: NodeConfig, stopping: asyncio.Event) -> None:
    state = State(config.state_folder)
    with state.in_use():
        membership = await unless_set(stopping, _member_of(config, state))
        member = Member(state, membership, token_lifetime=config.max_token_lifetime)
        config = await _completed(config, membership)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(membership_kept(member))
            await stack.enter_async_context(_workload_api(config, member))
            pool = Pool(member.identity, dial_timeout=config.dial_timeout, limits=config.limits)
            runtime = Runtime(member.identity, await stack.enter_async_context(pool), stopping)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            log.info("node", spiffe_id=membership.svid.spiffe_id, registry=config.registry_url or "its own")
            await _together(
                serve_manager(_manager(config), runtime),
                serve_kernel_forwarder(_forwarder(config, f"unix://{folder}/forwarder.sock"), runtime),
                *(_proxies(config, f"unix://{folder}/registry-proxy.sock", runtime) if config.proxy_listen_on else []),
            )


async def _together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts to their end; the first error ends all of them and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except* MeshError as errors:
        raise errors.exceptions[0] from None


def _manager(config: NodeConfig) -> NsmgrConfig:
    """The configuration of its manager."""
    proxy = config.proxy_listen_on
    return part_of(config, NsmgrConfig, name=f"nsmgr-{config.name}", proxy_registry_url=proxy)


def _proxies(config: NodeConfig, listen_on: str, runtime: Runtime) -> list[Coroutine[Any, Any, None]]:
    """Its proxy, and the registry proxy, which only the proxy uses: it listens on `listen_on`."""
    proxy = part_of(
        config,
        NsmgrProxyConfig,
        name=f"proxy-{config.name}",
        listen_on=(config.proxy_listen_on,),
        registry_url=config.local_url,
        registry_proxy_url=listen_on,
    )
    finder = part_of(config, RegistryProxyConfig, name=f"registry-proxy-{config.name}", listen_on=(listen_on,))
    return [serve_proxy(proxy, runtime), serve_registry_proxy(finder, runtime)]


def _forwarder(config: NodeConfig, listen_on: str) -> KernelConfig:
    """The configuration of its forwarder, a client of its manager."""
    return part_of(
        config,
        KernelConfig,
        name=f"forwarder-{config.name}",
        connect_to=config.local_url,
        listen_on=listen_on,
        nsname=config.forwarder_network_service_name,
    )


async def _member_of(config: NodeConfig, state: State) -> Membership:
    """The membership of this host: the one that it has stored, or a new one by its token."""
    membership = state.load()
    if membership is not None and membership.trust_domain != config.join:
        raise InvalidRequest(
            f"this host is a node of {membership.trust_domain!r}, not of {config.join!r}; another NSM_STATE_FOLDER, or "
            f"none in {config.state_folder!r}, lets it join another domain"
        )
    if membership is not None and not _has_expired(membership):
        return membership
    token = _token(config, membership)
    if token.trust_domain != config.join:
        raise InvalidRequest(f"the join token is of domain {token.trust_domain!r}, not of {config.join!r}")
    membership = await _joined(token)
    state.save(membership)
    log.info("joined", spiffe_id=membership.svid.spiffe_id)
    return membership


async def _joined(token: JoinToken) -> Membership:
    """The membership by a token; waits for the domain's server as long as it cannot be reached."""
    key, backoff = ec.generate_private_key(ec.SECP256R1()), Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return await join(token, key)
        except (Unavailable, TimedOut) as error:
            pause = backoff.next()
            log.warning("cannot join yet", reason=str(error), again_in_s=pause)
            await asyncio.sleep(pause)


def _has_expired(membership: Membership) -> bool:
    return time.time() >= membership.svid.expires


def _token(config: NodeConfig, membership: Membership | None) -> JoinToken:
    """The token, from wherever it is given. Raises `InvalidRequest`."""
    try:
        text = config.join_token or (Path(config.join_token_file).read_text() if config.join_token_file else _typed())
    except OSError as error:
        raise InvalidRequest(f"NSM_JOIN_TOKEN_FILE={config.join_token_file!r}: {error.strerror or error}") from None
    if not text.strip():
        why = (
            "this host has not joined yet"
            if membership is None
            else "the identity of this host expired while it was off"
        )
        raise InvalidRequest(
            f"{why}: `nsm identity token NODE`, in {config.join!r}, prints a token to pass in NSM_JOIN_TOKEN, "
            "NSM_JOIN_TOKEN_FILE or on standard input"
        )
    return JoinToken.parse(text)


def _typed() -> str:
    if sys.stdin is None:
        return ""
    return getpass.getpass("join token: ") if sys.stdin.isatty() else sys.stdin.readline()


async def _completed(config: NodeConfig, membership: Membership) -> NodeConfig:
    """The configuration with what the domain has told, and with this host's name and address."""
    own, settings = membership.svid.spiffe_id, membership.settings
    config = of_own_domain(config, membership.trust_domain)
    trusted = config.intermediaries or IdPatterns.parse(settings.get("intermediaries", ""))
    trusted = trusted.within(membership.trust_domain)
    host = await _own_address(membership.address)
    service, me = config.forwarder_network_service_name, IdPatterns([own])
    return replace(
        config,
        name=config.name or membership.node,
        node_name=config.node_name or membership.node,
        registry_url=config.registry_url or settings.get("registry", ""),
        intermediaries=IdPatterns([*trusted.patterns, own]),
        monitor_viewers=IdPatterns([*config.monitor_viewers.patterns, f"{own}/root"]),
        registration_policy=config.registration_policy.unless_listed(service, me),
        listen_on=tuple(_at(each, host) for each in config.listen_on),
        proxy_listen_on=_at(config.proxy_listen_on, host) if config.proxy_listen_on else "",
        tunnel_ip=config.tunnel_ip or ipaddress.ip_address(host),
    )


def _at(url: str, host: str) -> str:
    """A URL to listen on, at `host` if it names none."""
    address = parse_address(url)
    return url if address.is_unix or address.host else str(Address(host=host, port=address.port))


async def _own_address(domain: Address) -> str:
    """The address of this host towards its domain."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(domain.host, domain.port, type=socket.SOCK_DGRAM)
        family, kind, _, _, place = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(f"there is no way to the domain's {domain}: {error.strerror or error}") from None


@asynccontextmanager
async def _workload_api(config: NodeConfig, member: Member) -> AsyncIterator[None]:
    """Issue identities below the node's to workloads of this host, while the context is open."""
    entries = entries_below(member.identity.spiffe_id, config.entries)
    attached = Attached(config.attachments, member.identity.spiffe_id, entries)
    issuer = Issuer(
        member,
        attached.identify,
        lifetime=float(member.membership.settings[LIFETIME]),
        limits=config.limits,
    )
    # Not secret: each caller gets its own identity, or none.
    access = SocketAccess(mode=_ALL, group=config.socket_group)
    async with Sockets(issuer.methods, name=config.name, access=access, limits=config.limits) as sockets:
        own = [*entries.by_socket, parse_address(config.workload_api).path]
        await sockets.serve(own)
        async with Tasks("attached") as tasks:
            tasks.spawn(attached.follow(lambda more: sockets.serve([*own, *more])), name="sockets of attachments")
            with attached.told():
                yield


_ALL = 0o666
