"""A chain of services: a client through a firewall and three pass-through endpoints, on one node, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.running import load, mesh

FILE = Path(__file__).parents[1] / "examples" / "chain.yaml"
REQUESTS = 100


def measure() -> list[tuple[str, Sequence[float], str]]:
    """Milliseconds of each set-up, warm; an answer to the first packet is part of it. Raises RuntimeError."""
    text = FILE.read_text().replace("172.16.1.100/31", "10.64.0.0/12")
    with mesh("bench-chain", text.replace("chain/rules.yaml", str(FILE.parent / "chain" / "rules.yaml"))) as run:
        load(run, "-n", "20", "--cycle", service="shop")
        result = load(run, "-n", str(REQUESTS), "--cycle", "--first-packet", service="shop")
    return [("chain_5_setup", result["setup"], "ms")]


if __name__ == "__main__":
    for name, values, unit in measure():
        print(name, sorted(values)[len(values) // 2], unit)
