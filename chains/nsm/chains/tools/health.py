"""`nsm health URL`: whether a component serves."""

from __future__ import annotations

import argparse

from nsm.chains.transport import check_health

from .session import NoIdentity, run, session, workload_api


def main(arguments: list[str]) -> int:
    """Asks a component whether it serves; exits 0 if it does, 1 if not."""
    parser = argparse.ArgumentParser(prog="nsm health", description=main.__doc__)
    parser.add_argument("url", help="unix:///path, tcp://host:port or host:port; also that of the Workload API")
    parser.add_argument("--service", default="", help="one of its services; without: the whole component")
    parser.add_argument(
        "--alive",
        action="store_true",
        help="healthy also where there is no identity to ask with, which a restart would not mend",
    )
    parsed = parser.parse_args(arguments)

    async def work() -> int:
        try:
            return await ask()
        except NoIdentity as error:
            if not parsed.alive:
                raise
            print(f"{parsed.url}: not asked; {error}")
            return 0

    async def ask() -> int:
        async with session() as pool:
            if parsed.url == workload_api():
                print(f"{parsed.url}: gives {pool.identity.spiffe_id}")
                return 0
            serves = await check_health(pool, parsed.url, parsed.service)
            peer = await pool.channel(parsed.url).peer()
        print(f"{parsed.url} ({peer.spiffe_id}): {'serving' if serves else 'not serving'}")
        return 0 if serves else 1

    return run("health", work)
