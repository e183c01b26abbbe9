"""`kubectl nsm`, with a stand-in for kubectl."""

import os
import sys
import time

import pytest

from nsm.operate.kubectl import main

KUBECTL = """#!{python}
import os, pathlib, sys, time
folder = pathlib.Path({folder!r})
(folder / "words").write_text(" ".join(sys.argv[1:]))
(folder / "pid").write_text(str(os.getpid()))
{act}
"""
FORWARDS = 'print("Forwarding from 127.0.0.1:45678 -> 7410", flush=True); time.sleep(60)'


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Has kubectl do something; returns the folder in which it notes its words and its process id."""

    def acts(act):
        path = tmp_path / "kubectl"
        path.write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path), act=act))
        path.chmod(0o755)
        monkeypatch.setenv("KUBECTL", str(path))
        return tmp_path

    return acts


@pytest.fixture
def nsm(monkeypatch):
    """The calls of `nsm`, each with whether kubectl still runs."""
    calls = []

    def called(words):
        calls.append(words)
        return 1

    monkeypatch.setattr("nsm.chains.cli.main", called)
    return calls


def has_ended(folder):
    pid = int((folder / "pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_command_reads_the_view_through_a_forwarded_port(kubectl, nsm):
    folder = kubectl(FORWARDS)
    assert main(["wires", "--down", "-o", "wide"]) == 1
    assert nsm == [["wires", "--down", "-o", "wide", "--view", "http://127.0.0.1:45678"]]
    words = "--namespace nsm-system port-forward --address 127.0.0.1 deployment/view :7410"
    assert (folder / "words").read_text() == words
    assert has_ended(folder)


def test_with_a_pod_nothing_but_a_port_forward_to_it_is_asked(kubectl, nsm):
    folder = kubectl(FORWARDS)
    assert main(["-n", "mesh", "--context", "lab", "--kubeconfig", "/k", "--pod", "view-0", "why", "shop"]) == 1
    words = "--namespace mesh --context lab --kubeconfig /k port-forward --address 127.0.0.1 pod/view-0 :7410"
    assert (folder / "words").read_text() == words
    assert nsm == [["why", "shop", "--view", "http://127.0.0.1:45678"]]


def test_a_port_forward_that_is_refused_is_told(kubectl, nsm, capfd):
    kubectl('print("Error from server (Forbidden): pods", file=sys.stderr); sys.exit(1)')
    assert main(["wires"]) == 3
    told = capfd.readouterr().err
    assert "Error from server (Forbidden): pods" in told
    assert "kubectl nsm: kubectl cannot reach the view; is k8s/view applied" in told
    assert nsm == []


def test_a_port_forward_that_never_comes_is_given_up(kubectl, nsm, capsys):
    folder = kubectl("time.sleep(60)")
    began = time.monotonic()
    assert main(["--wait", "0.5", "wires"]) == 3
    assert time.monotonic() - began < 10
    assert "kubectl forwarded no port within 0.5 s" in capsys.readouterr().err
    assert not (folder / "pid").exists() or has_ended(folder)


def test_without_kubectl_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert main(["wires"]) == 3
    assert "cannot run /nowhere/kubectl: No such file or directory; install it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["wires", "--url", "tcp://h:1"], ["top", "--view=http://h"]])
def test_another_mesh_is_refused(words, nsm, capsys):
    assert main(words) == 2
    assert "names another mesh: use `nsm" in capsys.readouterr().err
    assert nsm == []


def test_commands_that_need_the_ends_of_a_wire_here_are_refused(nsm, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["ping", "shop"])
    assert "invalid choice: 'ping'" in capsys.readouterr().err


def test_help_of_a_command_needs_no_cluster(nsm, monkeypatch):
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    main(["wires", "--help"])
    assert nsm == [["wires", "--help"]]
