"""Tests side by side: what measures time has the machine to itself, and what is listed for that is there."""

import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT
from tests.workers import ALONE, APART, FIRST, TOGETHER, WITH_API_SERVER, group_of

SLOW = """
import os
import time

import pytest


@pytest.mark.parametrize("number", range({number}))
def test_slow(number):
    begin = time.monotonic()
    time.sleep(0.1)
    {does}
    with open("seen", "a") as seen:
        seen.write(f"{name} {{begin}} {{time.monotonic()}}\\n")
"""


@pytest.fixture
def run(tmp_path):
    """Runs tests in files of these names by two workers; gives when each ran, and how pytest ended."""

    def run(files, does="pass"):
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
        (tmp_path / "conftest.py").write_text("from tests.workers import *\n")
        for name, number in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(SLOW.format(name=name, number=number, does=does))
        words = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "-p", "no:cacheprovider"]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        lines = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
        return [(name, float(begin), float(end)) for name, begin, end in lines], done

    return run


def is_by_itself(seen, name):
    """Whether nothing else ran while a test of this file did."""
    return all(
        end <= begin or after <= start
        for own, begin, after in seen
        if own == name
        for other, start, end in seen
        if other != name
    )


OF_THE_CLUSTER = {"system", "kubectl", "wires", "excluded"}
"""The fixtures of tests/k8s/conftest.py."""
ALONE_FILE = "tests/hostile/test_policies.py"


@pytest.mark.parametrize(
    ("others", "number"), [({}, 1), ({"a": 1}, 2), ({"a": 3, "b": 1}, 1), ({"a": 1, "b": 2, "c": 3, "d": 1}, 3)]
)
def test_tests_that_measure_time_run_when_all_others_have_ended(run, others, number):
    files = {f"tests/{name}/test_it.py": many for name, many in others.items()}
    seen, done = run({**files, ALONE_FILE: number})
    assert done.returncode == 0, done.stdout
    assert len(seen) == number + sum(others.values())
    assert is_by_itself(seen, ALONE_FILE)


def test_a_worker_that_is_killed_is_replaced_and_what_measures_time_still_runs_by_itself(run):
    files = {"tests/a/test_it.py": 4, "tests/b/test_it.py": 4, ALONE_FILE: 2}
    seen, done = run(files, does="number or 'a/' not in __file__ or os._exit(1)")
    assert "1 failed, 9 passed" in done.stdout
    assert is_by_itself(seen, ALONE_FILE)


@pytest.mark.parametrize("listed", [*ALONE, *APART, *FIRST, *TOGETHER, *WITH_API_SERVER])
def test_what_is_listed_for_workers_is_there(listed):
    path, _, test = listed.partition("::")
    assert (ROOT / path).exists()
    assert not test or f"def {test}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("file", WITH_API_SERVER)
def test_the_cluster_is_used_by_one_worker(file):
    """What runs beside that one asks for nothing of the cluster."""
    assert group_of(f"{file}::test") == file
    asked = re.findall(r"def test_\w+\(([^)]*)\)", (ROOT / file).read_text())
    assert {name.strip() for names in asked for name in names.split(",")} & OF_THE_CLUSTER == set()


def test_tests_of_a_file_stay_together_unless_each_has_a_mesh_of_its_own():
    assert group_of("tests/kube/test_api.py::test_one") == group_of("tests/kube/test_api.py::test_two[x]")
    assert group_of("tests/hostile/test_pools.py::test_one") == group_of("tests/hostile/test_values.py::test_two")
    assert group_of("tests/k8s/test_system.py::test_one") == group_of("tests/k8s/test_cluster.py::test_two")
    assert group_of("tests/system/test_mesh.py::test_one") != group_of("tests/system/test_mesh.py::test_two")
