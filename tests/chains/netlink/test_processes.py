"""Which namespaces are in use, and how often all processes are looked at for it."""

import os

import pytest

from nsm.chains.core.descriptors import facts_of
from nsm.chains.netlink import processes
from nsm.chains.netlink.processes import Processes

NAMESPACE = "/proc/self/ns/net"


@pytest.fixture
def scans(monkeypatch):
    """No process is in the namespace; the descriptors that are found to keep it, and how often all were looked at."""

    class Scans:
        found, count = (), 0

        def held(self, own):
            self.count += 1
            left = [path for path in self.found if int(path.rpartition("/")[2]) not in own and os.path.exists(path)]
            return {facts_of(NAMESPACE).key: left} if left else {}

    made = Scans()
    monkeypatch.setattr(processes, "_look", dict)
    monkeypatch.setattr(processes, "_held", made.held)
    return made


def opened(scans, count):
    found = [os.open(NAMESPACE, os.O_RDONLY) for _ in range(count)]
    scans.found = [f"/proc/{os.getpid()}/fd/{each}" for each in found]
    return found


def test_a_namespace_is_deserted_in_the_moment_in_which_the_last_descriptor_is_closed(scans):
    """That was found out up to a quarter of a second later, which clients of a pod that had ended waited for."""
    key, looked = facts_of(NAMESPACE).key, Processes()
    for file in opened(scans, 2):
        for _ in range(100):
            assert not looked.is_deserted(key, ())
        os.close(file)
    assert looked.is_deserted(key, ())
    assert scans.count == 2  # however often it was asked meanwhile


def test_descriptors_of_our_own_do_not_keep_a_namespace_in_use(scans):
    key, looked = facts_of(NAMESPACE).key, Processes()
    (file,) = opened(scans, 1)
    assert not looked.is_deserted(key, ())
    assert looked.is_deserted(key, {file})  # it is ours since then
    os.close(file)


def test_a_descriptor_number_that_leads_elsewhere_by_now_keeps_nothing(scans):
    key, looked = facts_of(NAMESPACE).key, Processes()
    (file,) = opened(scans, 1)
    assert not looked.is_deserted(key, ())
    with open("/dev/null") as other:
        os.dup2(other.fileno(), file)
    scans.found = ()
    assert looked.is_deserted(key, ())
    os.close(file)


def test_a_mount_is_looked_for_again_after_a_moment(scans, monkeypatch):
    """Mounts have no descriptor by which they could be looked at."""
    key, looked = facts_of(NAMESPACE).key, Processes()
    monkeypatch.setattr(processes, "_held", lambda _own: {key: ["mount"]})
    assert not looked.is_deserted(key, ())
    monkeypatch.setattr(processes, "_held", scans.held)
    assert not looked.is_deserted(key, ())
    monkeypatch.setattr(processes, "_MOUNT_FRESH", 0.0)
    assert looked.is_deserted(key, ())


def test_what_keeps_a_namespace_is_found_in_proc():
    """By the real thing: this process is in one, and has it open."""
    with open(NAMESPACE) as file:
        key, path = facts_of(NAMESPACE).key, f"/proc/{os.getpid()}/fd/{file.fileno()}"
        assert path in processes._held(())[key]
        assert path not in processes._held({file.fileno()}).get(key, [])
        assert os.getpid() in processes._look()[key]
