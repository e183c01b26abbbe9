"""What ends with a workload's namespace."""

import signal

import pytest

from nsm.mesh import namespaces, zygote


@pytest.mark.parametrize(
    ("found", "looks", "signals"),
    [
        ([[]], 1, []),
        ([[7], []], 2, [(7, signal.SIGHUP)]),
        ([[7], [7], []], 3, [(7, signal.SIGHUP), (7, signal.SIGTERM)]),
    ],
)
def test_processes_are_looked_for_only_as_long_as_there_are_any(monkeypatch, found, looks, signals):
    """Each look reads /proc for all processes of the machine: `nsm mesh kill --namespaces` took a quarter of a second."""
    looked, sent, left = [], [], [*found]
    monkeypatch.setattr(namespaces, "inhabitants", lambda *about: (looked.append(about), left.pop(0))[1])
    monkeypatch.setattr(zygote.os, "kill", lambda pid, number: sent.append((pid, number)))
    zygote.end_inhabitants([1], ["mark"])
    assert (len(looked), sent) == (looks, signals)
