"""What must not become slower, measured once, in the checkout that it is started in."""

from __future__ import annotations

import asyncio
import json
import statistics

from bench import registry
from bench.__main__ import TOPOLOGY, cpu_seconds, serving_pids
from bench.running import load, mesh


def measure() -> dict[str, float]:
    """Milliseconds of a set-up, seconds of the processor for 1,000 calls, registrations a second."""
    with mesh("bench-against", TOPOLOGY) as run:
        serving = serving_pids(run)
        load(run, "-n", "50", "--cycle", "--refresh")
        before = cpu_seconds(serving)
        result = load(run, "-n", "400", "--cycle", "--refresh", "--first-packet")
        used = cpu_seconds(serving) - before
    registered = {name: values for name, values, _ in asyncio.run(registry.measure())}
    return {
        "local_setup": statistics.median(result["setup"]),
        "cpu_per_1000_s": used / 1.2,
        "register_10k_per_s": registered["register_10k_per_s"][0],
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
