"""What others notice while the attacks of tests/hostile go on, and what those leave in memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REQUESTS = 500
"""Of the bystander, during the attack that it notices most."""


def measure() -> list[tuple[str, float, str]]:
    """All attacks once, then the worst of them until the bystander has had its requests. Raises RuntimeError."""
    once = _attacked("tests/hostile")
    if not once["watches"]:
        raise RuntimeError("no test of tests/hostile has attacked while the bystander's requests went on")
    worst = max(once["watches"], key=lambda watch: _p99(watch["latencies"]))
    times = math.ceil(REQUESTS / worst["requests"])
    again = _attacked(worst["test"], "--attacks", str(max(2, times)))
    latencies = [value for watch in again["watches"] for value in watch["latencies"]]
    print(f"the bystander notices most: {worst['test']}", file=sys.stderr)
    return [
        ("bystander_ratio", _p99(latencies) / again["quiet"], ""),
        ("bystander_p99", _p99(latencies), "ms"),
        ("hostile_rss_mib", max(once["growth"].values()), "MiB"),
    ]


def _attacked(*arguments: str) -> dict[str, Any]:
    """What the tests' bystander saw; the attacker is nice, the mesh and the bystander are not."""
    with tempfile.NamedTemporaryFile(prefix="nsm-bench-") as file:
        words = [sys.executable, "-m", "pytest", "-q", "--attacker-nice", "19", "--figures", file.name, *arguments]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:  # nothing more than that a bound was exceeded, which is what is measured
            print(done.stdout[-2000:], file=sys.stderr)
        figures: dict[str, Any] = json.loads(Path(file.name).read_text() or "{}")
    if not figures:
        raise RuntimeError(f"the attacks did not come to their end: {done.stdout[-2000:]}")
    return figures


def _p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
