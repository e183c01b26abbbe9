"""Queries a component's health, with the identity of this process."""

from __future__ import annotations

import time

from nsm.chains.core import Unavailable
from nsm.chains.terminal import escaped
from nsm.chains.transport import check_health, shown_certificate

from .session import NoIdentity, run, session, workload_api


def ask(url: str, service: str) -> int:
    """The exit code of `nsm health`: 0 if `url` serves or, if this process has no identity, if it responds."""

    async def work() -> int:
        try:
            return await _serves(url, service)
        except NoIdentity as error:
            if url == workload_api():
                raise
            await _answers(url, error)
            return 0

    return run("health", work)


async def _answers(url: str, error: NoIdentity) -> None:
    shown = await shown_certificate(url)
    if time.time() >= shown.not_valid_after_utc.timestamp():
        raise Unavailable(f"the identity of {url} expired at {shown.not_valid_after_utc}, and {error}")
    print(escaped(f"{url}: responds; no further check, because {error}"))


async def _serves(url: str, service: str) -> int:
    async with session() as pool:
        if url == workload_api():
            print(f"{url}: issues {pool.identity.spiffe_id}")
            return 0
        serves = await check_health(pool, url, service)
        peer = await pool.channel(url).peer()
    print(escaped(f"{url} ({peer.spiffe_id}): {'serving' if serves else 'not serving'}"))
    return 0 if serves else 1
