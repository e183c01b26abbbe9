"""The components of one node as processes in a network namespace of their own, started and ended one by one."""

import os
import subprocess
import sys
import threading
import time
from collections import defaultdict

from tests.system.forwarder_kernel.hosts import Host

NAMES = ["identity", "registry", "nsmgr", "forwarder", "endpoint", "client"]
SECOND = "client-2"
"""One more client, which tests may start."""


class Node:
    """`start` any of `NAMES`, or `SECOND`; what they log is in `logs`."""

    def __init__(self, stack, folder, *, of=None, alone=(), **common):
        """`common` is in the environment of each, `of` has more for some, by name.

        Those that are `alone` have a network namespace of their own, which ends with them.
        """
        self.stack, self.folder, self.common, self.of, self.alone = stack, folder, common, of or {}, alone
        self.host = Host()
        stack.callback(os.close, self.host.descriptor)
        self.host.run("ip", "link", "set", "lo", "up")
        self.processes, self.logs, self._readers = {}, defaultdict(list), []
        stack.callback(self._end)

    def start(self, name, until='"ready"', inside=None):
        """Returns when it has logged `until`; it runs in the network namespace of the process `inside`, if given."""
        command, variables = self._commands()[name]
        environment = {
            "PATH": os.environ["PATH"],
            "NSM_NAME": name,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/{name}.id",
            **self.common,
            **variables,
            **self.of.get(name, {}),
        }
        where = ["unshare", "--net"] if name in self.alone else ["nsenter", f"--net={self.host.path}"]
        if inside is not None:
            where = ["nsenter", "--net", "--target", str(inside)]
        words = [*where, sys.executable, "-m", "nsm.chains", *command.split()]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        self.processes[name] = process
        lines = self.logs[name]
        begin = len(lines)
        reader = threading.Thread(target=self._read, args=(process, lines))
        reader.start()
        self._readers.append(reader)
        self.wait_for(name, until, begin)

    def wait_for(self, name, text, begin=0, seconds=20):
        """Wait until `name` logs `text` in a line behind `begin`."""
        end = time.monotonic() + seconds
        while not any(text in line for line in self.logs[name][begin:]):
            assert time.monotonic() < end, (name, text, self.logs[name][begin:])
            time.sleep(0.01)

    def start_all(self):
        for name in NAMES:
            self.start(name)

    def stop(self, name):
        self.processes[name].terminate()
        assert self.processes[name].wait(timeout=20) == 0

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def links(self):
        return {name: link["ifindex"] for name, link in self.host.links().items()}

    def _commands(self):
        manager = f"unix://{self.folder}/nsmgr.sock"
        entries = ",".join(f"socket:{self.folder}/{name}.id=spiffe://local.mesh/{name}" for name in [*NAMES, SECOND])
        registry = f"unix://{self.folder}/registry.sock"
        return {
            "identity": ("identity", {"NSM_ENTRIES": entries}),
            "registry": ("registry", {"NSM_LISTEN_ON": registry}),
            "nsmgr": (
                "nsmgr",
                {"NSM_LISTEN_ON": f"{manager},tcp://127.0.0.1:5001", "NSM_REGISTRY_URL": registry},
            ),
            "forwarder": (
                "forwarder-kernel",
                {
                    "NSM_CONNECT_TO": manager,
                    "NSM_LISTEN_ON": f"unix://{self.folder}/forwarder.sock",
                    "NSM_NODE_NAMESPACE": "true",  # the endpoint shares the forwarder's
                },
            ),
            "endpoint": (
                "nse",
                {"NSM_CONNECT_TO": manager, "NSM_SERVICE_NAMES": "icmp", "NSM_CIDR_PREFIX": "10.0.0.0/24"},
            ),
            "client": ("nsc", {"NSM_CONNECT_TO": manager, "NSM_NETWORK_SERVICES": "kernel://icmp/nsm-1"}),
            SECOND: ("nsc", {"NSM_CONNECT_TO": manager, "NSM_NETWORK_SERVICES": "kernel://icmp/nsm-2"}),
        }

    def _read(self, process, lines):
        lines.extend(iter(process.stderr.readline, ""))
        process.stderr.close()

    def _end(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join()
