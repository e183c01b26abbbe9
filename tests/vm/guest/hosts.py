"""Network namespaces and cables between them, for tests inside the virtual machine."""

import json
import os
import subprocess

from nsm.mesh import namespaces


class Host:
    """A network namespace that lives as long as the test's process."""

    def __init__(self):
        self.descriptor = namespaces.new_network()
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def run(self, command, check=True):
        """What a command says in there; its output in the error if it fails."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command.split()], capture_output=True, text=True, timeout=50, check=False
        )
        print("$", command, done.stdout + done.stderr, sep="\n")
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, command):
        return self.run(f"ip {command}")

    def links(self):
        return {link["ifname"]: link for link in json.loads(self.ip("-d -j address")) if link["ifname"] != "lo"}

    def pings(self, address, count=1):
        """How many of `count` packets came back."""
        said = self.run(f"ping -n -c {count} -i 0.2 -W 3 {address}", check=False)
        return int(said.partition(" received")[0].rpartition(" ")[2])


def cable(one, other, *, names=("eth0", "eth0"), addresses=((), ())):
    """A veth pair between two hosts, up, with addresses at either end."""
    one.ip(f"link add {names[0]} type veth peer name {names[1]} netns {other.path}")
    for host, name, own in zip((one, other), names, addresses, strict=True):
        for address in own:
            host.ip(f"address add {address} dev {name} {'nodad' if ':' in address else ''}")
        host.ip(f"link set {name} up")
