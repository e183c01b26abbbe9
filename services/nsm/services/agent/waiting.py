"""Waits for descriptors, also for those above 1,023, which `select.select` cannot wait for."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable
from typing import Protocol, TypeVar


class HasDescriptor(Protocol):
    """A socket, or what stands for one."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


D = TypeVar("D", bound="int | HasDescriptor")


def readable(items: Iterable[D], seconds: float | None) -> list[D]:
    """Those of `items` that can be read, or whose other end is gone; waits for at most `seconds`, None: forever."""
    by_descriptor, poll = {each if isinstance(each, int) else each.fileno(): each for each in items}, select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    timeout = None if seconds is None else math.ceil(max(0.0, seconds) * 1000)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(timeout)]
