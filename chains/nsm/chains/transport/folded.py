"""Repeated log lines: the first one is logged at once, the others as one line with their number."""

from __future__ import annotations

import asyncio

from nsm.chains.logs import log

PERIOD = 60.0
"""Seconds whose repetitions become one line."""
_MOST = 64
"""Different lines of one period; further ones are counted together."""

_Line = tuple[str, tuple[tuple[str, str], ...]]


class Folded:
    """Warnings of one component about its peers, which could cause any number of them."""

    def __init__(self) -> None:
        self._repeated: dict[_Line, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def warn(self, event: str, **values: str) -> None:
        """Log `event` with `values`, unless the same was logged within the `PERIOD`: then count it."""
        line = event, tuple(values.items())
        if line not in self._repeated and len(self._repeated) >= _MOST:
            line = event, (("others", "of many kinds"),)
        if line in self._repeated:
            self._repeated[line] += 1
            return
        self._repeated[line] = 0
        log.warning(event, **dict(line[1]))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self.flush)

    def flush(self) -> None:
        """Log how often each was repeated, and start again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        repeated, self._repeated = self._repeated, {}
        for (event, values), times in repeated.items():
            if times:
                log.warning(event, **dict(values), more_times=times, in_s=PERIOD)
