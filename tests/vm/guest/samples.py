"""Tests that go well or wrong, run inside the virtual machine to see what is told of them."""

import os
import subprocess
import time

from tests.vm.guest.hosts import Host, cable


def packets_cross_a_cable():
    one, other = Host(), Host()
    cable(one, other, addresses=(["10.0.0.1/30", "fd00::1/64"], ["10.0.0.2/30", "fd00::2/64"]))
    assert one.pings("10.0.0.2") == 1
    assert other.pings("fd00::1") == 1


def fails():
    assert 1 + 1 == 1, "two is not one"


def hangs():
    subprocess.run(["setsid", "sleep", "1000"], check=True)


def finds_nobody():
    """Nothing of a test that hung is left."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/cmdline") as words:
            assert "sleep" not in words.read()


def overwrites_itself():
    with open(__file__, "w") as file:
        file.write("")
    assert os.stat(__file__).st_size == 0


def crashes_the_kernel():
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("c")
    time.sleep(30)
