"""Two checkouts compared, the one of this file and another: the ratio of the medians of some runs each, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

ROOT, SOURCE = Path(__file__).parents[1], Path(__file__).with_name("compared.py")
RUNS, MOST = 7, 1.05
RATES = {"register_10k_per_s"}
"""The more the better: their ratio is turned round."""


def compare(other: Path, runs: int = RUNS) -> int:
    """Print each figure of both and how much this one is slower; 1 if any is by more than allowed.

    Raises RuntimeError if one of them cannot be measured.
    """
    ours, theirs = list[dict[str, float]](), list[dict[str, float]]()
    for number in range(runs):
        pair = [(ROOT, ours), (other.resolve(), theirs)]
        for checkout, measured in pair if number % 2 else reversed(pair):
            measured.append(_measured(checkout))
            print(f"{number + 1}/{runs}  {checkout}  {measured[-1]}", flush=True)
    ratios = {name: _told(name, [run[name] for run in ours], [run[name] for run in theirs]) for name in ours[0]}
    return 1 if max(ratios.values()) > MOST else 0


def _told(name: str, ours: list[float], theirs: list[float]) -> float:
    here, there = statistics.median(ours), statistics.median(theirs)
    ratio = there / here if name in RATES else here / there
    print(f"{name:<24}{here:>12.3f}{there:>12.3f}{ratio:>8.3f}  {MOST}")
    return ratio


def _measured(checkout: Path) -> dict[str, float]:
    """By the checkout's own Python, which imports that checkout's modules."""
    words = [str(checkout / ".venv/bin/python"), "-c", SOURCE.read_text()]
    try:
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError:
        raise RuntimeError(f"{checkout} has no .venv; run make .venv/.ready there") from None
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
