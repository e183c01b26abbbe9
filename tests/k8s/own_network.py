"""A network namespace for the tests of this process: what they listen on nobody else can reach."""

import contextlib
import os
import subprocess

from nsm.mesh.namespaces import NEW_NET, enter, unshare

ADDRESS = "10.98.0.1"
"""An address in it that is not of the loopback network: objects of Kubernetes cannot name those."""


@contextlib.contextmanager
def own_network():
    """This thread, and what it starts, is in there until the end of the block. Needs root."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(NEW_NET, "make a network namespace")
        for words in (["link", "set", "lo", "up"], ["address", "add", f"{ADDRESS}/32", "dev", "lo"]):
            subprocess.run(["ip", *words], check=True, timeout=10)
        yield
    finally:
        enter(before, NEW_NET)
        os.close(before)
