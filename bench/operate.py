"""How long an operator waits for an answer: from the start of a command to its end, in a mesh with a hundred wires.

python -m bench.operate
"""

from __future__ import annotations

import subprocess
import time

from bench.running import NSM, mesh

Figure = tuple[str, list[float], str]
WIRES, ROUNDS = 100, 15
COMMANDS = {"wires_ms": ("wires",), "why_ms": ("why", "client/nsm-50"), "can_ms": ("can", "client", "icmp-responder")}


def measure(wires: int = WIRES, rounds: int = ROUNDS) -> list[Figure]:
    """Milliseconds of each command, whose first run is not counted."""
    urls = ", ".join(f'"kernel://icmp-responder/nsm-{number}"' for number in range(wires))
    topology = f"""
nodes: [{{name: node-1}}]
endpoints:
  - {{name: endpoint, node: node-1, services: [icmp-responder], prefixes: [10.0.0.0/12]}}
clients:
  - {{name: client, node: node-1, wires: [{urls}]}}
"""
    with mesh("bench-operate", topology) as run:
        return [
            (name, [_one(run.name, words) for _ in range(rounds + 1)][1:], "ms") for name, words in COMMANDS.items()
        ]


def _one(name: str, words: tuple[str, ...]) -> float:
    began = time.perf_counter()
    done = subprocess.run([*NSM, *words, "--name", name], capture_output=True, text=True, timeout=60, check=False)
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return taken * 1000


if __name__ == "__main__":
    for figure, values, unit in measure():
        print(f"{figure:<12}{sorted(values)[len(values) // 2]:>10.1f}{max(values):>10.1f}  {unit}")
