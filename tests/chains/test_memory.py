"""Memory that was needed for a moment is given back."""

import subprocess
import sys

from nsm.chains import libc, memory

PEAK = """
from nsm.chains import memory
trimmer, before = memory.Trimmer(), memory.resident()
pieces = [bytearray(2000) for _ in range(10_000)]
kept = pieces[::50]  # what stays, among what goes
del pieces
after = memory.resident()
trimmer.look()
print(after - before, memory.resident() - before)
"""


def test_what_a_peak_took_is_given_back_though_some_of_it_stays():
    found = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    kept, given_back = map(int, found.split())
    assert kept > 15e6
    assert given_back < 3e6


def test_pages_are_given_back_after_growth_and_seldom_if_that_does_not_help(monkeypatch):
    """A component that is large because it has much to do is not kept busy with it."""
    size, clock, trims = [100 * 2**20], [0.0], []
    monkeypatch.setattr(memory, "resident", lambda: size[0])
    monkeypatch.setattr(memory, "monotonic", lambda: clock[0])
    monkeypatch.setattr(libc, "malloc_trim", lambda: trims.append(clock[0]))
    trimmer = memory.Trimmer()

    def look(times):
        trims.clear()
        for _ in range(times):
            clock[0] += memory.INTERVAL
            trimmer.look()
        return len(trims)

    assert look(100) == 0, "it has not grown"
    size[0] += 2 * memory.MUCH
    assert look(1) == 1
    assert look(1000) < 25, "it stays as large as it is"
    size[0] += 2 * memory.MUCH
    assert look(1) == 1, "it has grown again"
    size[0] -= 4 * memory.MUCH
    assert look(100) == 0
