"""What the scripts ask of a machine that is not Debian's, or of a user who is not root."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.fixture
def programs(tmp_path):
    """Makes programs on the path, the only ones that there are; the user is not root."""

    def make(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    make("id", "echo 1000")
    make.folder = tmp_path
    return make


def run(programs, *words):
    shell = [shutil.which("sh"), *words]
    environment = {"PATH": str(programs.folder)}
    return subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_who_has_an_engine_can_build_images_with_nothing_else(programs):
    programs("docker", "exit 0")
    done = run(programs, "scripts/system-packages", "images")
    assert (done.returncode, done.stderr) == (0, "")


def test_who_has_no_engine_is_told_which_package_has_one(programs):
    done = run(programs, "scripts/system-packages", "images")
    assert done.returncode == 1
    assert "docker.io" in done.stderr
    assert "iperf3" not in done.stderr


def test_a_base_that_can_neither_be_pulled_nor_made_is_named(programs):
    for name in ("dirname", "sed", "grep"):
        programs(name, f'exec {shutil.which(name)} "$@"')
    programs("timeout", 'shift; exec "$@"')
    programs("docker", 'case "$*" in "build --help") echo --secret ;; *) exit 1 ;; esac')
    done = run(programs, "scripts/images", "build", "nsc")
    assert done.returncode == 1
    assert done.stderr == (
        "python:3.11-slim-bookworm cannot be pulled; name another by BASE=, or install mmdebstrap, which makes one\n"
    )


def test_nothing_is_tried_with_an_engine_that_does_not_answer(programs):
    scripts = programs.folder / "scripts"
    scripts.mkdir()
    script = shutil.copy(ROOT / "scripts/with-engine", scripts)
    for name in ("dirname", "mkdir", "sleep", "xargs"):
        programs(name, f'exec {shutil.which(name)} "$@"')
    programs("seq", "echo 1 2 3")
    programs("docker", "exit 1")
    programs("dockerd", "exec sleep 20")
    done = run(programs, script, "sh", "-c", "echo it is tried")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the engine does not answer" in done.stderr


FLAKY = """
import os
from pathlib import Path


def test_always():
    pass


def test_now_and_then():
    before = Path("seen").exists()
    Path("seen").touch()
    {does}
"""


@pytest.fixture
def once_more(tmp_path):
    """Runs two tests by the script; the second of them does what it is told."""

    def run(does, *options):
        (tmp_path / "test_it.py").write_text(FLAKY.format(does=does))
        pytest_here = [sys.executable, "-m", "pytest", "--rootdir", tmp_path, "-p", "xdist", *options, tmp_path]
        return subprocess.run(
            [ROOT / "scripts/once-more", *pytest_here],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("does", "code", "told"),
    [
        (
            "assert False",
            1,
            ["1 failed, 1 passed", "once more what failed", "\nFAILED test_it.py::{}", "= 1 failed in"],
        ),
        (
            "assert before",
            0,
            ["1 failed, 1 passed", "once more what failed", "\nPASSED test_it.py::{}", "= 1 passed in"],
        ),
        ("assert True", 0, ["2 passed"]),
    ],
)
def test_what_fails_is_run_once_more_by_itself_and_both_runs_are_shown(once_more, does, code, told):
    done = once_more(does)
    assert done.returncode == code, done.stdout
    places = [done.stdout.rindex(line.format("test_now_and_then")) for line in told]
    assert places == sorted(places)
    assert ("once more" in done.stdout) == (len(told) > 1)


def test_what_passed_only_the_second_time_is_written_down(once_more, tmp_path):
    assert once_more("assert before").returncode == 0
    (line,) = (tmp_path / ".pytest_cache/once-more").read_text().splitlines()
    assert line.endswith(" test_it.py::test_now_and_then")
    (tmp_path / "seen").unlink()
    assert once_more("assert False").returncode == 1
    assert (tmp_path / ".pytest_cache/once-more").read_text() == f"{line}\n"


def test_a_worker_that_is_killed_takes_no_other_test_with_it(once_more):
    """Its own is run once more."""
    done = once_more("before or os._exit(1)", "-n", "2")
    assert done.returncode == 0, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "= 1 passed in" in done.stdout


def test_a_run_that_is_killed_half_way_is_no_reason_for_a_shorter_one(once_more):
    """It would repeat what failed some other day, and pass."""
    assert once_more("assert False").returncode == 1
    done = once_more("os._exit(1)")
    assert done.returncode == 1
    assert "once more" not in done.stdout
