"""How much longer everything takes here than it would with a processor of its own."""

import bisect
import threading
import time

PAUSE, WORK = 0.5, 0.02
"""Seconds between two measurements, and those of a processor that each of them uses."""


class Haste:
    """Measures in the background, with the priority that the mesh has, which was started by the same process.

    A bound is for a machine that has time. On one that has not, the same work takes `stretch` times as long.
    """

    def __init__(self):
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self._at, self._ratios = [], []
        self._thread.start()

    def stop(self):
        """End the measurements."""
        self._ended.set()
        self._thread.join()

    def stretch(self, begin, end):
        """The mean between two moments of CLOCK_MONOTONIC, at least 1."""
        first, last = bisect.bisect_left(self._at, begin), bisect.bisect_right(self._at, end)
        ratios = self._ratios[max(0, first - 1) : last + 1] or [1.0]
        return max(1.0, sum(ratios) / len(ratios))

    def _run(self):
        while not self._ended.wait(PAUSE):
            begin, used = time.monotonic(), time.thread_time()
            while time.thread_time() - used < WORK:
                sum(range(1000))
            self._ratios.append((time.monotonic() - begin) / WORK)
            self._at.append(begin)
