"""What a local mesh does when something in it, or the one who runs it, goes wrong: nothing may be left."""

import itertools
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from nsm.mesh.topology import DEFAULT

from .conftest import NSM, until

pytestmark = pytest.mark.system

TWO = """
nodes: [{name: node-1}]
services: [{name: nothing, matches: [{routes: [{destination_selector: {never: there}}]}]}]
endpoints: [{name: endpoint, node: node-1, services: [icmp, nothing], payload: IP, prefixes: [10.1.0.0/24]}]
clients: [{name: client, node: node-1, wires: ["kernel://icmp/nsm-1", "kernel://nothing/nsm-2"]}]
"""


def test_a_killed_supervisor_leaves_no_process_and_no_file(mesh):
    """The process that forks the components cleans up, without anyone asking."""
    mesh.up()
    os.kill(mesh.supervisor(), signal.SIGKILL)
    assert mesh.is_gone()


def test_the_supervisor_goes_down_when_the_process_that_forks_is_killed(mesh):
    """It does not spin and `down` does not wait for it."""
    mesh.up()
    os.kill(mesh.zygote(), signal.SIGKILL)
    assert mesh.is_gone()


def test_what_is_left_when_both_are_killed_goes_with_the_next_command(mesh):
    """Nobody is alive to clean up: `down` does, and `up` would."""
    mesh.up()
    zygote, supervisor = mesh.zygote(), mesh.supervisor()
    os.kill(zygote, signal.SIGSTOP)  # so that it cannot clean up between the two
    os.kill(supervisor, signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    assert until(lambda: not mesh.processes())
    assert mesh.folder.exists()
    mesh.nsm("down")
    assert mesh.is_gone()


def test_down_ends_a_supervisor_that_does_not_answer(mesh):
    """A stopped process is not waited for by hand."""
    mesh.up()
    os.kill(mesh.supervisor(), signal.SIGSTOP)
    mesh.nsm("down")
    assert mesh.is_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_up_that_is_interrupted_leaves_nothing(mesh, number):
    """Whichever way it ends, and while a wire cannot be had."""
    started = mesh.start("--timeout", "0", "-f", "/dev/stdin", stdin=subprocess.PIPE)
    threading.Thread(target=_give, args=(started, TWO)).start()
    assert "no wire yet" in started.stderr.readline()
    started.send_signal(number)
    started.wait(timeout=30)
    assert started.returncode != 0
    assert mesh.is_gone()
    started.stdout.close()
    started.stderr.close()


def _give(process, text):
    process.stdin.write(text)
    process.stdin.close()


def test_up_gives_up_after_its_timeout_and_says_what_is_missing(mesh, tmp_path):
    topology = tmp_path / "mesh.yaml"
    topology.write_text(TWO)
    told = mesh.up("--timeout", "6", "-f", str(topology), code=1).stderr
    assert "not up after 6 s: client: no wire yet" in told
    assert "no endpoint of 'nothing' matches labels" in told
    assert mesh.is_gone()


def test_the_logs_of_an_up_that_failed_can_be_read_until_the_next_one(mesh, tmp_path):
    """They say why; they were thrown away."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(f"{DEFAULT.rstrip()}\n    environment: {{NSM_REQUEST_TIMEOUT: soon}}\n")
    told = mesh.up("-f", str(topology), code=1).stderr
    kept = f"(kept in /run/nsm-mesh/{mesh.name}.logs)"
    assert told.splitlines()[-1] == f"`nsm mesh logs --name {mesh.name}` shows what the components logged {kept}"
    assert f"it failed; `nsm mesh logs --name {mesh.name}` shows why" in mesh.nsm("status", code=1).stderr
    assert "nsm nsc: NSM_REQUEST_TIMEOUT='soon'" in mesh.nsm("logs", "client").stdout
    assert "there is no log of 'clint'; there are client" in mesh.nsm("logs", "clint", code=1).stderr
    mesh.up()
    assert "soon" not in mesh.nsm("logs", "client").stdout
    mesh.nsm("down")
    assert "there is nothing at" in mesh.nsm("logs", code=1).stderr


SLEEP = f"sleep {100_000 + os.getpid()}"
"""What nobody else on this machine runs."""
AWAY = ["unshare", "--net", "--mount", *SLEEP.split()]


def test_down_ends_what_exec_started_wherever_it_went(mesh):
    """Into other namespaces, without the environment, without a parent."""
    mesh.up()
    direct = mesh.start_in("client", *AWAY)
    words = " ".join(AWAY)
    script = f"{words} & env -i {words} & setsid -f env -i unshare -p -f {words}"
    mesh.run("client", "sh", "-c", f"({script}) >/dev/null 2>&1")
    assert until(lambda: len(pids_of(SLEEP)) == 4)
    mesh.nsm("down")
    assert direct.wait(timeout=10) != 0
    direct.stdout.close()
    assert pids_of(SLEEP) == []


def test_what_exec_started_in_a_workload_that_is_taken_out_ends_and_that_of_others_goes_on(mesh, tmp_path):
    mesh.up()
    topology = tmp_path / "mesh.yaml"
    topology.write_text(DEFAULT.partition("clients:")[0])
    with mesh.start_in("client", *AWAY) as goes, mesh.start_in("endpoint", *AWAY) as stays:
        assert until(lambda: len(pids_of(SLEEP)) == 2)
        mesh.up("-f", str(topology))
        assert goes.wait(timeout=10) != 0
        assert pids_of(SLEEP) == [stays.pid]
        stays.terminate()


def test_status_tells_what_it_knows_when_a_manager_is_dead(mesh):
    """The wire is there, but nobody can say how it is."""
    mesh.up()
    os.kill(mesh.pid("nsmgr-node-1"), signal.SIGKILL)
    assert until(lambda: _states(mesh)["nsmgr-node-1"] == "ended with -9")
    (wire,) = mesh.status()["wires"]
    assert (wire["client"], wire["interface"], wire["state"]) == ("client", "nsm-1", "UNKNOWN")
    assert "cannot reach" in wire["reason"]
    assert "ended with -9" in mesh.nsm("status").stdout


def test_a_client_is_told_by_its_manager_that_the_registry_is_down(mesh):
    """Each time it asks, and not only that the manager did not answer in time."""
    mesh.up()
    mesh.nsm("kill", "registry-node-1")
    settings = "NSM_NAME=late NSM_REQUEST_TIMEOUT=4s NSM_NETWORK_SERVICES=kernel://icmp/nsm-2"
    with mesh.start_in("client", "sh", "-c", f"{settings} exec {' '.join(NSM)} nsc 2>&1") as late:
        events = map(json.loads, late.stdout)
        told = list(itertools.islice((event["error"] for event in events if event["event"] == "no wire yet"), 3))
        late.terminate()
    assert set(told) == {"nsmgr-node-1: cannot reach tcp://127.0.0.1:5002: Connection refused (transport)"}


def test_a_wire_whose_client_was_killed_says_so(mesh):
    """And the workload can still be entered, with its wire: its namespaces are the mesh's."""
    mesh.up()
    os.kill(mesh.pid("client"), signal.SIGKILL)
    assert until(lambda: _states(mesh)["client"] == "ended with -9")
    (wire,) = mesh.status()["wires"]
    assert wire["reason"] == "the client ended with -9"
    assert "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", "10.0.0.0").stdout


def pids_of(words):
    """Of the processes with that command line."""
    wanted = words.replace(" ", "\0") + "\0"
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _words_of(pid) == wanted]


def _words_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def name_of(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _states(mesh):
    return {component["name"]: component["state"] for component in mesh.status()["components"]}


@pytest.mark.parametrize("level", ["WARN", "ERROR", "loud", "DEBUG"])
def test_up_returns_whatever_the_log_level(mesh, level):
    """And the logs have what was asked for."""
    if level == "loud":
        told = mesh.up(env={**os.environ, "NSM_LOG_LEVEL": level}, code=1).stderr
        assert "identity ended with 2 before it was ready: nsm identity: NSM_LOG_LEVEL='loud'" in told
        return
    mesh.up(env={**os.environ, "NSM_LOG_LEVEL": level})
    assert "eyJ" not in mesh.nsm("logs").stdout  # how every token begins
    logged = mesh.nsm("logs", "client").stdout
    assert ("wire up" in logged) == (level == "DEBUG")


def test_down_ends_what_was_started_in_a_workload(mesh):
    """It would keep the namespaces alive."""
    mesh.up()
    with subprocess.Popen([*NSM, "mesh", "--name", mesh.name, "exec", "client", "--", "sleep", "600"]) as left:
        assert until(lambda: Path(f"/proc/{left.pid}/comm").read_text() == "sleep\n")
        mesh.nsm("down")
        assert left.wait(timeout=5) == -signal.SIGHUP
    assert mesh.is_gone()


def test_down_while_it_comes_up_takes_it_down(mesh):
    """From another terminal, at any moment."""
    with mesh.start() as started:
        assert until(mesh.folder.exists)
        mesh.nsm("down")
        assert started.wait(timeout=20) == 1
        assert "the mesh was taken down" in started.stderr.read()
    assert mesh.is_gone()


def test_of_two_that_start_one_mesh_both_have_it(mesh):
    """One makes it, the other waits until it is there and finds nothing to do."""
    with mesh.start() as one, mesh.start() as two:
        assert [one.wait(timeout=30), two.wait(timeout=30)] == [0, 0]
        assert all("is up" in each.stdout.read() for each in (one, two))
    assert len([pid for pid in mesh.processes() if name_of(pid) == "nsm-supervisor"]) == 1
    assert mesh.status()["wires"][0]["state"] == "UP"


def test_temporary_files_of_components_are_in_the_folder_of_the_mesh(mesh):
    """So that those of a killed one go with it."""
    mesh.up()
    assert {path.name[:4] for path in (mesh.folder / "tmp").iterdir()} >= {"nse-"}
    os.kill(mesh.pid("endpoint"), signal.SIGKILL)
    mesh.nsm("down")
    assert mesh.is_gone()


def test_a_workload_has_a_resolv_conf_where_the_machine_s_is_a_link_to_nowhere(mesh, tmp_path):
    """As on a machine whose resolver is not running."""
    (tmp_path / "etc").mkdir()
    script = (
        f"mount --bind {tmp_path}/etc {tmp_path}/etc && cp -a /etc/. {tmp_path}/etc/ && rm -f {tmp_path}/etc/resolv.conf"
        f" && ln -s /nowhere/resolv.conf {tmp_path}/etc/resolv.conf && mount --bind {tmp_path}/etc /etc && "
        f"{' '.join(NSM)} mesh --name {mesh.name} up"
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True, timeout=40)
    change = "echo nameserver 192.0.2.1 > /etc/resolv.conf; cat /etc/resolv.conf"
    assert mesh.run("client", "sh", "-c", change).stdout == "nameserver 192.0.2.1\n"
    assert not (tmp_path / "etc/resolv.conf").exists()
