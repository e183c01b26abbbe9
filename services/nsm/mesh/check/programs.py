"""Programs that people and tests run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from .model import Finding, ok, warning

PROGRAMS = {
    "ip": ("iproute2", "needed to inspect interfaces and routes"),
    "ping": ("iputils-ping", "`nsm demo` pings with it"),
    "iperf3": ("iperf3", "the benchmarks measure throughput with it"),
}


def programs() -> Iterator[Finding]:
    """Whether they are installed."""
    for name, (package, use) in PROGRAMS.items():
        if (path := shutil.which(name)) is not None:
            yield ok(name, path)
        else:
            yield warning(name, f"{name} is not installed: {use}", f"apt install {package}")
