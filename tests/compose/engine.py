"""The container engine and composed projects, as a person's shell uses them."""

import json
import re
import subprocess
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = re.search(r'^version = "(.*)"', (CHECKOUT / "chains/pyproject.toml").read_text(), re.MULTILINE)[1]
IMAGES = subprocess.run(
    [CHECKOUT / "scripts/images", "list"], capture_output=True, text=True, check=True
).stdout.split()


def name_of(image):
    return image.removeprefix("localhost/nsm/").removesuffix(f":{VERSION}")


def call(*command, check=True, timeout=100):
    """What a command prints; it has to succeed, unless `check` is off: then also what it says of its failure."""
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def docker(*arguments, **more):
    return call("docker", *arguments, **more)


def inspect(kind, name):
    return json.loads(docker(kind, "inspect", name))[0]


def composes():
    """The commands that compose: Docker's plugin, and the older program; those that are here."""
    found = [["docker", "compose"], ["docker-compose"]]
    return [command for command in found if _is_here(command)]


def _is_here(command):
    try:
        return subprocess.run([*command, "version"], capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Project:
    """A mesh that was composed, from docker-compose.yml or from `file`, under a name of its own."""

    def __init__(self, name, command, file=CHECKOUT / "docker-compose.yml"):
        self.name = name
        self._command = [*command, "--project-directory", str(CHECKOUT), "-f", str(file), "-p", name]

    def __call__(self, *arguments, **more):
        return call(*self._command, *arguments, **more)

    def up(self, *arguments):
        self("up", "-d", "--no-build", *arguments, timeout=200)

    def down(self):
        self("down", "-v", "--remove-orphans", timeout=200)

    def run(self, service, *command, index=1, **more):
        """Execute a command in a running container."""
        return self("exec", "-T", "--index", str(index), service, *command, **more)

    def containers(self, service=""):
        """Their ids; all of them, or a service's."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        if service:
            labels.append(f"label=com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", label)]
        return docker("ps", "-q", *filters).split()

    def services(self):
        return self("config", "--services").split()

    def logs(self, service):
        return self("logs", "--no-color", service)

    def until_healthy(self, service, number=1, seconds=90):
        """Wait until that many containers of the service are healthy; what clients are when they have their wires."""
        end = time.monotonic() + seconds
        while True:
            states = [inspect("container", each)["State"]["Health"]["Status"] for each in self.containers(service)]
            if states == ["healthy"] * number:
                return
            assert time.monotonic() < end, f"{service}: {states}\n{self.logs(service)}"
            time.sleep(0.2)

    def other_end(self, service, interface="nsm-1", index=1, family=4):
        """The address at the far end of a wire: the route over it says so."""
        routes = self.run(service, "ip", f"-{family}", "route", "show", "dev", interface, "proto", "110", index=index)
        return routes.split()[0]

    def pings(self, service, address, index=1):
        """How many of three pings were answered."""
        said = self.run(service, "ping", "-c", "3", "-i", "0.2", "-W", "2", address, index=index, check=False)
        return int(re.search(r"(\d+) received", said)[1])
