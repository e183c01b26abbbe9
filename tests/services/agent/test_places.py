"""What wires can be attached to."""

import os
import subprocess

import pytest

from nsm.chains.core import InvalidRequest, NotFound, Unavailable
from nsm.services.agent.containers import Runtimes
from nsm.services.agent.places import NETNS, PID, Place, enter, name_of, place_of_pid

NONE = Runtimes([], [], "")


def test_a_process_is_entered_as_long_as_it_is_the_same():
    entrance = enter(place_of_pid(os.getpid()), NONE)
    assert os.path.samestat(os.fstat(entrance.network), os.stat("/proc/self/ns/net"))
    entrance.close()
    with pytest.raises(NotFound, match="another one has its id"):
        enter(Place(PID, str(os.getpid()), started=1), NONE)


def test_a_process_that_has_ended_is_not_found():
    process = subprocess.Popen(["true"])
    place = place_of_pid(process.pid)
    process.wait()
    with pytest.raises(NotFound, match=f"no process {process.pid}"):
        enter(place, NONE)
    with pytest.raises(NotFound, match=f"no process {process.pid}"):
        place_of_pid(process.pid)


def test_a_file_that_is_no_network_namespace_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (str(tmp_path / "file"), "/proc/self/ns/mnt", "/dev/null"):
        with pytest.raises(InvalidRequest, match="is not a network namespace"):
            enter(Place(NETNS, path), NONE)
    with pytest.raises(Unavailable, match="there is no network namespace"):
        enter(Place(NETNS, str(tmp_path / "none")), NONE)


def test_a_process_is_called_by_its_program_and_its_id():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert name_of(place_of_pid(process.pid), NONE) in (f"sleep-{process.pid}", f"python-{process.pid}")
    finally:
        process.kill()
        process.wait()
    assert name_of(Place(NETNS, "/run/netns/blue green/"), NONE) == "blue-green"
    assert name_of(Place(NETNS, "/run/netns/blue"), NONE, "-edge-1") == "blue-edge-1"


@pytest.mark.parametrize("found", [{}, {"kind": "pod", "value": "x"}, {"kind": "pid", "value": ""}, {"a": 1}])
def test_a_place_that_cannot_be_read_is_refused(found):
    with pytest.raises(InvalidRequest):
        Place.read(found)
