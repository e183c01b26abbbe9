"""What is installed is one of the files that were looked at: by hash, from whatever index."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.metadata import distributions
from importlib.util import module_from_spec, spec_from_loader

import pytest

from tests.docs.pages import ROOT

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def lowered(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text):
    return {lowered(name): version for name, version in PINNED.findall(text)}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("lock", str(ROOT / "scripts/lock"))
    module = module_from_spec(spec_from_loader("lock", loader))
    loader.exec_module(module)
    return module


def blocks(path):
    return re.findall(r"^[A-Za-z0-9].*?(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_hashes_for_all_of_it_and_no_address(path):
    assert blocks(path)
    for block in blocks(path):
        assert re.fullmatch(r"\S+==\S+( ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", block), block[:80]
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--?(i|f|index|extra|find|trusted)\b", text, re.MULTILINE)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_says_the_versions_of_the_constraints(path):
    for name, version in pins(path.read_text()).items():
        assert CONSTRAINTS[name] == version


def test_what_has_code_for_machines_has_files_for_all_of_them():
    """A wheel for each Python from 3.11 to 3.13 on amd64 and arm64, and the source: ten files are fewer than any has."""
    text = {re.match(r"[^=]+", block)[0]: block for block in blocks(ROOT / "locks/images.txt")}
    for name in ("aiohttp", "cffi", "frozenlist", "msgspec", "multidict", "propcache", "yarl"):
        assert text[name].count("--hash=") > 10, name


def test_all_that_images_need_is_in_their_lock(script):
    locked = pins((ROOT / "locks/images.txt").read_text())
    for need in script.needs_of_images():
        assert lowered(re.match(r"[\w.-]+", need)[0]) in locked, f"{need}: make lock"
    for need in script.needs_of_development():
        name = lowered(re.match(r"[\w.-]+", need)[0])
        assert name in locked or name in pins((ROOT / "locks/dev.txt").read_text()), f"{need}: make lock"


def test_what_is_installed_here_is_what_the_locks_say():
    locked = {**pins((ROOT / "locks/images.txt").read_text()), **pins((ROOT / "locks/dev.txt").read_text())}
    here = {lowered(each.name): each.version for each in distributions() if not each.name.startswith("nsm")}
    assert {name: here[name] for name in here if name not in ("pip", "setuptools")}.items() <= locked.items()


def test_a_distribution_s_needs_are_looked_at_in_full(script):
    """Every extra that an image installs is among those that the locks are made for."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, extras in re.findall(r"'nsm-([a-z-]+)\[([a-z0-9,]+)\]'", dockerfile):
        assert set(extras.split(",")) <= set(script.IMAGES[name])
    for folder in script.IMAGES:
        assert tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["name"] == f"nsm-{folder}"


def test_make_and_the_dockerfile_install_by_hash_and_in_no_other_way():
    for line in (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line
    for line in re.findall(r"python3 -m pip (?:install|wheel) [^&]*", (ROOT / "Dockerfile").read_text()):
        assert "--require-hashes" in line or "--no-index" in line


@pytest.fixture
def index(tmp_path):
    """A folder with a wheel, and a lock that has its hash; returns what pip says to the lock."""
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, "./apis"]
    subprocess.run(wheel, cwd=ROOT, check=True, timeout=50)
    (file,) = tmp_path.glob("*.whl")
    said = subprocess.run(
        [sys.executable, "-m", "pip", "hash", file], capture_output=True, text=True, check=True
    ).stdout
    number = re.search(r"sha256:[0-9a-f]{64}", said)[0]

    def install(number):
        (tmp_path / "lock.txt").write_text(f"nsm-apis==0.1.0 --hash={number}\n")
        found = ["--no-index", "-f", tmp_path, "--no-deps", "--target", tmp_path / "place"]
        words = [sys.executable, "-m", "pip", "install", *found, "--require-hashes", "-r", tmp_path / "lock.txt"]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=50)

    return install, number


def test_a_file_that_was_exchanged_is_refused(index):
    install, number = index
    assert install(number).returncode == 0
    done = install(f"sha256:{'0' * 64}")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stdout + done.stderr


# --- make audit


@pytest.fixture
def audit(tmp_path):
    """Runs the script with a program in the place of pip-audit."""

    def run(program):
        (tmp_path / "pip-audit").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "pip-audit").chmod(0o755)
        path = f"{tmp_path}:/usr/bin:/bin"
        words = [shutil.which("sh"), ROOT / "scripts/audit", "locks/go.txt"]
        return subprocess.run(words, env={"PATH": path}, capture_output=True, text=True, check=False, timeout=20)

    return run


@pytest.mark.parametrize(
    ("program", "code", "told"),
    [
        ("echo 'No known vulnerabilities found'; exit 0", 0, ""),
        ("echo 'Found 2 known vulnerabilities in 1 package'; exit 1", 1, ""),
        ("echo 'Connection error: nobody there' >&2; exit 1", 2, "locks/go.txt could not be checked"),
        ("exit 1", 2, "could not be checked"),
        ("exit 127", 2, "could not be checked"),
        ("kill -9 $$", 2, "could not be checked"),
    ],
)
def test_an_audit_that_could_not_ask_is_no_success(audit, program, code, told):
    done = audit(program)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
