"""A whole local mesh inside the virtual machine: real processes, started and asked by what the `nsm` command calls."""

import io
import json
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

from nsm.mesh.cli import main

TOPOLOGY = Path("/run/topology.yaml")


class Mesh:
    """A mesh called `default`; it ends with the test."""

    def __init__(self):
        self.pids = {}

    def up(self, topology):
        TOPOLOGY.write_text(topology)
        print(self.nsm("up", "--timeout", "100", "-f", str(TOPOLOGY)))
        self.pids = {part["name"]: part["pid"] for part in json.loads(self.nsm("status", "--json"))["components"]}

    def nsm(self, *words):
        """What `nsm mesh` says. In this process: starting Python takes seconds here."""
        with redirect_stdout(io.StringIO()) as said:
            code = main([*words])
        assert code == 0, f"nsm mesh {' '.join(words)}: {said.getvalue()}"
        return said.getvalue()

    def told(self, component, event):
        """The fields of each line about `event` in a component's log."""
        log = self.nsm("logs", component)
        print(log)
        lines = [line.partition(event)[2] for line in log.splitlines() if event in line]
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]

    def run(self, component, command):
        """What a command says in the network of a component: a workload's own, else its node's."""
        inside = ["nsenter", f"--net=/proc/{self.pids[component]}/ns/net", *command.split()]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=50, check=False)
        print("$", command, done.stdout + done.stderr, sep="\n")
        return done.stdout

    def links(self, component):
        """The interfaces in the network of a component, by name."""
        return {link["ifname"]: link for link in json.loads(self.run(component, "ip -d -j link"))}
