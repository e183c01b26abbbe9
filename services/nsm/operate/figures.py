"""What components use and do: from their `/metrics`, or of local processes from the kernel."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UsageError

_OK = "OK"


@dataclass(frozen=True)
class Figures:
    """What one component has used and done since it started."""

    memory: int | None = None
    """Bytes that are resident."""
    cpu: float | None = None
    """Seconds."""
    calls: float | None = None
    errors: float | None = None
    """How many of the calls failed."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """How many calls took at most that many seconds."""


def named(text: str) -> tuple[str, str]:
    """Name and URL of ``[NAME=]URL``. Raises `UsageError`."""
    name, equals, url = text.partition("=") if not text.startswith(("http://", "https://")) else ("", "", text)
    url = url if equals or not name else name
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--metrics {text!r}: expected [NAME=]http://host:port/metrics")
    return name or url.partition("://")[2].partition("/")[0], url


def fetch(url: str, timeout: float) -> str:
    """The text at `url`. Raises OSError."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - `named` has checked the scheme
            text: str = answer.read().decode(errors="replace")
    except (urllib.error.URLError, ValueError) as error:
        raise OSError(f"{url}: {getattr(error, 'reason', error)}") from None
    return text


def read(text: str) -> Figures:
    """The figures in Prometheus's text format, whatever prefix the names have. Raises ValueError."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - only for `top`

    memory = cpu = None
    calls: Counter[str] = Counter()
    buckets: Counter[float] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("process_resident_memory_bytes"):
                memory = int(sample.value)
            elif sample.name.endswith("process_cpu_seconds_total"):
                cpu = sample.value
            elif sample.name.endswith("nsm_calls_total"):
                calls[sample.labels.get("code", "")] += sample.value  # type: ignore[assignment]
            elif sample.name.endswith("nsm_call_duration_seconds_bucket"):
                buckets[float(sample.labels["le"])] += sample.value  # type: ignore[assignment]
    if not calls:
        return Figures(memory, cpu)
    total = sum(calls.values())
    return Figures(memory, cpu, float(total), float(total - calls[_OK]), dict(sorted(buckets.items())))


def of_process(pid: int) -> Figures:
    """What a process of this machine uses; empty if it has ended."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, IndexError, ValueError):
        return Figures()
    ticks = int(fields[11]) + int(fields[12])
    return Figures(resident * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))


def quantile(before: Mapping[float, float], after: Mapping[float, float], part: float) -> float | None:
    """Within how many seconds that part of the calls between two readings was answered: a bound of the histogram.

    None if there were none, infinite if it is beyond the largest bound.
    """
    counts: Sequence[tuple[float, float]] = [(bound, count - before.get(bound, 0.0)) for bound, count in after.items()]
    total = counts[-1][1] if counts else 0.0
    if total <= 0:
        return None
    return next(bound for bound, count in counts if count >= part * total)
