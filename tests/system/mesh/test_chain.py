"""Chains of services with real packets, and endpoints that start when they are needed."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import until

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[3] / "examples"
STAGES = ("firewall", "pass-1", "pass-2", "pass-3")
WEB = """
import http.server, sys, threading
servers = [http.server.HTTPServer((sys.argv[1], port), http.server.SimpleHTTPRequestHandler) for port in (80, 8080)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("serving", flush=True)
"""
GET = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).status)
except OSError as error:
    print(f"no answer: {error}")
"""


@contextmanager
def web_in(mesh, workload, address, folder):
    """A web server at the ports 80 and 8080 of a workload."""
    process = mesh.start_in(workload, sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{WEB}", address)
    try:
        assert process.stdout.readline() == "serving\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def get(mesh, url, timeout=1):
    return mesh.run("client", sys.executable, "-c", GET, url, str(timeout)).stdout.strip()


def pings(mesh, workload, address, *options):
    ping = ["ping", "-n", "-c", "1", "-W", "2", *options, address]
    return "1 received" in mesh.run(workload, *ping, code=None).stdout


def copied(tmp_path, *, payload="ETHERNET"):
    """The example, where its rules may be changed."""
    shutil.copytree(EXAMPLES / "chain", tmp_path / "chain")
    text = (EXAMPLES / "chain.yaml").read_text().replace("payload: ETHERNET", f"payload: {payload}")
    (tmp_path / "chain.yaml").write_text(text)
    return str(tmp_path / "chain.yaml"), tmp_path / "chain" / "rules.yaml"


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_chain_passes_what_its_firewall_allows(mesh, tmp_path, payload):
    """Upstream's example: port 80 is blocked, 8080 is open, and both ends ping each other. Rules change at once, and a
    bad line leaves those before in force."""
    file, rules = copied(tmp_path, payload=payload)
    mesh.up("-f", file)
    (wire,) = mesh.status()["wires"]
    assert [name for name in wire["path"] if name in STAGES] == list(STAGES)
    assert pings(mesh, "client", "172.16.1.100")
    assert pings(mesh, "gateway", "172.16.1.101")
    with web_in(mesh, "gateway", "172.16.1.100", tmp_path):
        assert get(mesh, "http://172.16.1.100:8080/") == "200"
        assert get(mesh, "http://172.16.1.100:80/").startswith("no answer")
        rules.write_text(rules.read_text().replace("action: allow", "action: maybe", 1))
        line = next(n for n, text in enumerate(rules.read_text().splitlines(), 1) if "maybe" in text)
        assert until(lambda: f"chain/rules.yaml:{line}: action 'maybe': expected allow or deny" in log_of(mesh))
        assert get(mesh, "http://172.16.1.100:8080/") == "200"
        rules.write_text(rules.read_text().replace("maybe", "allow").replace("8080", "80"))
        assert until(lambda: get(mesh, "http://172.16.1.100:80/", 0.3) == "200")
        assert get(mesh, "http://172.16.1.100:8080/", 0.5).startswith("no answer")
    assert '"rule": "web"' in log_of(mesh) or "rule=web" in log_of(mesh)
    mesh.nsm("kill", "--signal", "TERM", "client")
    for stage in STAGES:
        names = json.loads(mesh.run(stage, "ip", "-j", "link").stdout)
        assert {each["ifname"] for each in names} == {"lo"}, stage


def log_of(mesh, component="firewall"):
    return mesh.nsm("logs", component).stdout


def test_a_chain_comes_back_when_its_last_endpoint_and_a_stage_die(mesh, tmp_path):
    """The client heals: no stage does. Packets pass while a stage is away, since its interfaces are joined."""
    file, _ = copied(tmp_path, payload="IP")
    mesh.up("-f", file)
    mesh.nsm("kill", "pass-2")
    assert pings(mesh, "client", "172.16.1.100")
    mesh.nsm("start", "pass-2")
    assert pings(mesh, "client", "172.16.1.100")
    mesh.nsm("kill", "--namespaces", "gateway")
    assert until(lambda: mesh.status()["wires"][0]["state"] == "DOWN")
    mesh.nsm("start", "gateway")
    assert until(lambda: pings(mesh, "client", "172.16.1.100"), 20)
    assert until(lambda: mesh.status()["wires"][0]["state"] == "UP")


def test_an_endpoint_starts_when_a_client_needs_it_and_ends_when_nobody_does(mesh):
    mesh.up("-f", str(EXAMPLES / "on-demand.yaml"))
    (wire,) = mesh.status()["wires"]
    assert (wire["endpoint"], wire["state"]) == ("shop-1", "UP")
    assert pings(mesh, "client", "10.61.0.0")
    mesh.nsm("kill", "--signal", "TERM", "client")
    assert until(lambda: "ending: this endpoint is not used" in log_of(mesh, "shop-1"))
    assert until(lambda: component(mesh, "shop-1")["state"].startswith("ended"))
    mesh.nsm("start", "client")
    assert until(lambda: pings(mesh, "client", "10.61.0.0"))


def component(mesh, name):
    return next(each for each in mesh.status()["components"] if each["name"] == name)


def test_a_stage_may_be_a_program_of_the_users_own(mesh):
    mesh.up("-f", str(EXAMPLES / "limit-rate.yaml"))
    assert pings(mesh, "client", "10.62.0.0")
    assert "limit rate over 10 mbytes/second drop" in mesh.run("limiter", "nft", "list", "ruleset").stdout
