"""What every component does around its chain: configuration, logs, identity, signals, an exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from nsm.apis import codec, connection, networkservice, registry
from nsm.chains import logs
from nsm.chains.config import Common, ConfigError, load
from nsm.chains.config.loader import describe
from nsm.chains.core import MeshError, counts
from nsm.chains.identity import Identity
from nsm.chains.identity.source import identity_from
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.logs import log
from nsm.chains.memory import give_back
from nsm.chains.metrics import metrics
from nsm.chains.telemetry import sent_logs, sent_metrics
from nsm.chains.terminal import columns, escaped
from nsm.chains.tracing import traces
from nsm.chains.transport import DIAL_TIMEOUT, Pool, SocketAccess

SVID_ENDS = counts.Reading("nsm_svid_expiration_timestamp_seconds", "When the SVID expires, in seconds since 1970")
C = TypeVar("C", bound=Common)
T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """What a component runs with."""

    identity: Identity
    pool: Pool
    stopping: asyncio.Event
    """Set when the process is asked to stop."""

    def access(self, config: Common) -> SocketAccess:
        """Who may connect to the component's unix sockets."""
        return SocketAccess(mode=config.socket_mode, group=config.socket_group)

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which may wait forever, such as for another component; exits if the process is asked to stop."""
        return await unless_set(self.stopping, work)

    async def ends(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether `work` comes to its end before the component is asked to stop, which cancels it."""
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].done() and tasks[0].result() is None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(
    name: str,
    kind: type[C],
    main: Callable[[C, Runtime], Awaitable[None]],
    arguments: list[str],
    *,
    waits: Callable[[C, str], None] = lambda *_: None,
) -> int:
    """Run the component `name` until it is done or asked to stop; returns the exit code.

    0: success; 1: failure; 2: invalid configuration. `waits` is called with the reason while the component has no
    identity yet, without which nothing can start.
    """

    async def with_identity(config: C, stopping: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            source = identity_from(
                config.workload_api,
                token_lifetime=config.max_token_lifetime,
                tell=lambda why: waits(config, why),
            )
            identity = await unless_set(stopping, stack.enter_async_context(source))
            config = of_own_domain(config, trust_domain_of(identity.spiffe_id))
            dial_timeout = getattr(config, "dial_timeout", DIAL_TIMEOUT)
            SVID_ENDS.of(identity, lambda known: {(): known.svid.expires})
            pool = await stack.enter_async_context(Pool(identity, dial_timeout=dial_timeout, limits=config.limits))
            await main(config, Runtime(identity, pool, stopping))

    return run_plain(name, kind, with_identity, arguments)


def of_own_domain(config: C, trust_domain: str) -> C:
    """The configuration, with patterns that name no trust domain completed with our own."""
    found = {each.name: getattr(config, each.name) for each in fields(config)}
    return replace(
        config, **{name: value.within(trust_domain) for name, value in found.items() if hasattr(value, "within")}
    )


def run_plain(
    name: str, kind: type[C], main: Callable[[C, asyncio.Event], Awaitable[None]], arguments: list[str]
) -> int:
    """Like `run`, for a component without an identity."""
    if arguments and arguments[0] in {"-h", "--help"}:
        print(help_of(name, kind))
        return 0
    if arguments:
        told = f"unexpected argument {arguments[0]!r}: environment variables configure it; see `nsm {name} --help`"
        print(escaped(f"nsm {name}: {told}"), file=sys.stderr)
        return 2
    try:
        loaded = load(kind, os.environ)
    except ConfigError as error:
        for fault in error.faults:
            print(escaped(f"nsm {name}: {fault}"), file=sys.stderr)
        return 2
    prepare_codec()
    logs.set_up(getattr(loaded.config, "name", name), loaded.config.log_level)
    for warning in loaded.warnings:
        log.warning(warning)
    shown = getattr(loaded.config, "name", name)

    async def with_metrics(config: C, stopping: asyncio.Event) -> None:
        async with metrics(config), sent_metrics(shown, config):
            await main(config, stopping)

    try:
        with sent_logs(shown, loaded.config), traces(shown, loaded.config):
            asyncio.run(_until_stopped(with_metrics, loaded.config))
    except MeshError as error:
        log.error("stopped", error=str(error))
        return 1
    return 0


def prepare_codec() -> None:
    """Compile the codec for the messages that every component uses, so that the first call is as fast as any other."""
    codec.prepare(
        networkservice.NetworkServiceRequest,
        connection.ConnectionEvent,
        connection.MonitorScopeSelector,
        registry.NetworkServiceQuery,
        registry.NetworkServiceResponse,
        registry.NetworkServiceEndpointQuery,
        registry.NetworkServiceEndpointResponse,
    )


async def unless_set(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. If `stopping` is set first, `work` is cancelled, and so is the caller."""
    task, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise asyncio.CancelledError
        return task.result()
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


async def _until_stopped(main: Callable[[C, asyncio.Event], Awaitable[None]], config: C) -> None:
    """Run `main`; the first signal asks it to stop, the second one cancels it."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    work = asyncio.ensure_future(main(config, stopping))

    def stop() -> None:
        if stopping.is_set():
            work.cancel()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        loop.add_signal_handler(number, stop)
    for number, level in ((signal.SIGUSR1, "DEBUG"), (signal.SIGUSR2, config.log_level)):
        loop.add_signal_handler(number, _log_from, level)
    gc.freeze()  # imported objects live as long as the process
    gc.set_threshold(*_GC_THRESHOLD)
    waiting, trimming = asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(give_back())
    try:
        await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            log.info("stopping")
            await asyncio.wait([work], timeout=_GRACE)
            work.cancel()
        await asyncio.gather(work, return_exceptions=False)
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        waiting.cancel()
        trimming.cancel()


def _log_from(level: str) -> None:
    logs.set_level(level)
    log.warning("the log level changed", logs_from=level)


_GC_THRESHOLD = 20_000, 20, 20
"""A call creates thousands of objects and few cycles; the default of 700 would trigger several collections a call."""
_GRACE = 20.0
"""Seconds that a component may take to stop cleanly."""


def help_of(name: str, kind: type[Common]) -> str:
    """The help of the component `name`: its variables, what they mean, their defaults."""
    rows = [(variable, f"{about} [{default}]" if default else about) for variable, default, about in describe(kind)]
    return "\n".join([f"nsm {name}: configured by environment variables; defaults in brackets.", "", *columns(rows)])
