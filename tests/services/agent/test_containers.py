"""Containers are found by the answers of Docker's and Podman's sockets, and by the files of containerd."""

import json
import os
import socket
import threading

import pytest

from nsm.chains.core import Conflict, NotFound, Unavailable
from nsm.services.agent.containers import CONTAINERD, DOCKER, PODMAN, Container, Runtimes

ID = "4f1c" * 16


class Runtime:
    """A socket that answers each request with what `answers` has for its path."""

    def __init__(self, path, answers):
        self.path, self.answers, self.asked = str(path), answers, []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            connection = self._socket.accept()[0]
            with connection:
                request = connection.recv(4096).decode()
                if not request:
                    return
                path = request.split()[1]
                self.asked.append(path)
                status, body = self.answers.get(path, (404, "{}"))
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def close(self):
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
        self._thread.join()
        self._socket.close()


def told(pid=42, running=True):
    return 200, json.dumps({"Id": ID, "Name": "/web", "State": {"Pid": pid, "Running": running}})


@pytest.fixture
def runtime(tmp_path):
    found = []

    def start(name, answers):
        found.append(Runtime(tmp_path / name, answers))
        return found[-1]

    yield start
    for each in found:
        each.close()


def tasks(folder, space, container, pid):
    place = folder / "tasks" / space / container
    place.mkdir(parents=True)
    (place / "init.pid").write_text(str(pid))
    return [str(folder / "tasks")]


def test_a_container_of_docker_is_found_by_its_name(runtime):
    docker = runtime("docker.sock", {"/containers/web/json": told()})
    assert Runtimes([(DOCKER, docker.path)], []).find("web") == Container(DOCKER, ID, "web", 42)


def test_a_name_cannot_be_a_path_of_the_runtime_s_api(runtime):
    docker = runtime("docker.sock", {})
    with pytest.raises(NotFound, match="no container"):
        Runtimes([(DOCKER, docker.path)], []).find("../images")
    assert docker.asked == ["/containers/..%2Fimages/json"]


def test_a_container_that_does_not_run_has_no_process(runtime):
    podman = runtime("podman.sock", {"/containers/web/json": told(0, False)})
    assert Runtimes([(PODMAN, podman.path)], []).find("web").pid == 0


def test_a_container_of_containerd_is_found_by_its_id_or_the_beginning_of_it(tmp_path):
    runtimes = Runtimes([], tasks(tmp_path, "k8s.io", ID, os.getpid()), "")
    assert runtimes.find(ID) == Container(CONTAINERD, ID, ID, os.getpid())
    assert runtimes.find(ID[:12]).pid == os.getpid()
    with pytest.raises(NotFound):
        runtimes.find("4f")


def test_a_container_of_containerd_is_found_by_the_name_that_nerdctl_gave_it(tmp_path):
    names = tmp_path / "nerdctl" / "1935db59" / "names" / "default"
    names.mkdir(parents=True)
    (names / "web").write_text(ID)
    runtimes = Runtimes([], tasks(tmp_path, "default", ID, os.getpid()), str(tmp_path / "nerdctl"))
    assert runtimes.find("web") == Container(CONTAINERD, ID, "web", os.getpid())


def test_a_container_whose_process_has_ended_does_not_run(tmp_path):
    assert Runtimes([], tasks(tmp_path, "default", ID, 1 << 30), "").find(ID).pid == 0


def test_docker_s_container_is_one_though_containerd_has_it_too(runtime, tmp_path):
    docker = runtime("docker.sock", {f"/containers/{ID}/json": told()})
    found = Runtimes([(DOCKER, docker.path)], tasks(tmp_path, "moby", ID, os.getpid()), "").find(ID)
    assert found.runtime == DOCKER


def test_a_name_in_two_runtimes_has_to_be_told_apart(runtime, tmp_path):
    docker = runtime("docker.sock", {"/containers/webwebweb/json": told()})
    runtimes = Runtimes([(DOCKER, docker.path)], tasks(tmp_path, "default", "webwebweb", os.getpid()), "")
    with pytest.raises(Conflict, match="--runtime"):
        runtimes.find("webwebweb")
    assert runtimes.find("webwebweb", CONTAINERD).runtime == CONTAINERD
    assert runtimes.find("webwebweb", DOCKER).runtime == DOCKER


@pytest.mark.parametrize("answer", [(500, "{}"), (200, "no JSON"), (200, "{}"), (200, "[]")])
def test_a_runtime_that_fails_is_named_rather_than_no_container(runtime, answer):
    docker = runtime("docker.sock", {"/containers/web/json": answer})
    with pytest.raises(Unavailable, match="docker at .*docker.sock"):
        Runtimes([(DOCKER, docker.path)], []).find("web")
