"""`nsm health URL`: whether a component serves."""

from __future__ import annotations

import time

from nsm.chains.core import Unavailable
from nsm.chains.terminal import escaped
from nsm.chains.transport import check_health, shown_certificate

from .arguments import Parser
from .session import NoIdentity, run, session, workload_api


def main(arguments: list[str]) -> int:
    """Asks a component whether it serves; exits 0 if it does, 1 if not.

    Who is given no identity cannot ask; for him it serves if it answers, by an identity that has not expired.
    """
    parser = Parser(prog="nsm health", description=main.__doc__)
    parser.add_argument("url", help="unix:///path, tcp://host:port or host:port; also that of the Workload API")
    parser.add_argument("--service", default="", help="one of its services; without: the whole component")
    parser.add_argument(
        "--alive",
        action="store_true",
        help="healthy also where it does not answer for want of an identity, which a restart would not mend",
    )
    parsed = parser.parse_args(arguments)

    async def work() -> int:
        try:
            return await ask()
        except NoIdentity as error:
            if parsed.alive:
                print(escaped(f"{parsed.url}: not asked; {error}"))
            elif parsed.url == workload_api():
                raise
            else:
                await answers(error)
            return 0

    async def answers(error: NoIdentity) -> None:
        shown = await shown_certificate(parsed.url)
        if time.time() >= shown.not_valid_after_utc.timestamp():
            raise Unavailable(f"the identity of {parsed.url} ended at {shown.not_valid_after_utc}, and {error}")
        print(escaped(f"{parsed.url}: answers; not asked more, since {error}"))

    async def ask() -> int:
        async with session() as pool:
            if parsed.url == workload_api():
                print(f"{parsed.url}: gives {pool.identity.spiffe_id}")
                return 0
            serves = await check_health(pool, parsed.url, parsed.service)
            peer = await pool.channel(parsed.url).peer()
        print(escaped(f"{parsed.url} ({peer.spiffe_id}): {'serving' if serves else 'not serving'}"))
        return 0 if serves else 1

    return run("health", work)
