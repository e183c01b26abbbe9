"""`make chaos SEED=… MINUTES=…`: what a mesh goes through, and whether it comes back each time."""

import argparse
import asyncio
import os
import sys
import time

from .faults import KINDS
from .run import Broken, Chaos


def main():
    """Run one seed; the exit code is 1 if something did not come back."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="which schedule; without it, any")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long [2]")
    parser.add_argument(
        "--kind", action="append", choices=[each.__name__ for each in KINDS], help="only faults of this kind"
    )
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else time.time_ns() % 100_000
    print(f"seed {seed}, {chosen.minutes:g} minutes", flush=True)
    try:
        asyncio.run(run(seed, chosen.minutes * 60, chosen.kind))
    except Broken as error:
        print(f"{error}\nagain: make chaos SEED={seed} MINUTES={chosen.minutes:g}", file=sys.stderr)
        return 1
    return 0


async def run(seed, seconds, kinds):
    """All of it, with the logs kept if it fails."""
    name = f"chaos-{os.getpid()}"
    async with Chaos.begun(name, lambda line: print(line, flush=True)) as chaos:
        try:
            count = await chaos.go(seed, seconds, kinds)
        except BaseException:
            await chaos.mesh.keep_logs(f"chaos-{seed}.log")
            raise
        print(f"{count} faults, and everything came back each time; {chaos.summary()}")


if __name__ == "__main__":
    sys.exit(main())
