"""One mesh of each kind for all attacks, an attacker, and a bystander who must not notice any of it.

``mesh`` is a real local mesh, ``composed`` the composed chains with their default arguments (see `mesh.Target`). A test
that is to show that others are not disturbed attacks inside ``async with bystander.watching("what is attacked"):``.
"""

import json
import os
from pathlib import Path

import pytest

from . import mesh as meshes
from .attacker import Attacker
from .bystander import Bystander


def pytest_addoption(parser):
    parser.addoption(
        "--attacker-nice", type=int, default=0, help="how nice the attacking process is, not the attacked ones"
    )
    parser.addoption("--attacks", type=int, default=1, help="how often each attack is made")
    parser.addoption("--figures", default="", help="a file for what the bystander saw, as JSON")


def pytest_generate_tests(metafunc):
    attacks = metafunc.config.getoption("--attacks", default=1)
    if attacks > 1 and "hostile" in str(metafunc.definition.path):
        metafunc.fixturenames.append("attack_number")
        metafunc.parametrize("attack_number", range(attacks))


@pytest.fixture(scope="session")
def real_mesh():
    with meshes.real(f"h{os.getpid()}") as target:
        yield target


@pytest.fixture
def mesh(real_mesh, nice):
    """A real mesh; the test runs where its TCP sockets can be reached."""
    with real_mesh.reached():
        yield real_mesh


@pytest.fixture(scope="session")
def composed(tmp_path_factory):
    """The composed chains with their default arguments, in a process of their own."""
    folder = tmp_path_factory.mktemp("composed")
    with meshes.composed(folder) as target:
        yield target


@pytest.fixture(scope="session")
def nice(request, bystander):
    """Everybody else runs already: from now on only what attacks is nice."""
    os.nice(request.config.getoption("--attacker-nice", default=0))


@pytest.fixture(scope="session")
def bystander(request, real_mesh, tmp_path_factory):
    """Of the real mesh."""
    file = tmp_path_factory.mktemp("bystander") / "authority.pem"
    file.write_bytes(authority_pem(real_mesh.authority))
    seen = Bystander(real_mesh, file)
    before = {component: real_mesh.resident_mib(component) for component in ("nsmgr", "forwarder")}
    try:
        seen.measure_quiet()
        yield seen
    finally:
        growth = {component: real_mesh.resident_mib(component) - mib for component, mib in before.items()}
        seen.close()
        if figures := request.config.getoption("--figures", default=""):
            Path(figures).write_text(json.dumps({"quiet": seen.quiet, "watches": seen.watches, "growth": growth}))


@pytest.fixture(scope="session")
def bystander_of_composed(composed, tmp_path_factory):
    """Of the composed chains."""
    file = tmp_path_factory.mktemp("bystander") / "authority.pem"
    file.write_bytes(authority_pem(composed.authority))
    seen = Bystander(composed, file)
    yield seen
    seen.close()


@pytest.fixture
def attacked(mesh):
    """What `attacker` and `victim` meet; a file whose attacks are tried on both meshes has it be `target`."""
    return mesh


@pytest.fixture
async def attacker(attacked):
    async with Attacker(attacked) as found:
        yield found


@pytest.fixture
async def victim(attacked):
    """Another workload, for what it does itself and for what is done in its name."""
    async with Attacker(attacked, "victim") as found:
        yield found


@pytest.fixture
async def attacker_of_composed(composed):
    async with Attacker(composed) as found:
        yield found


@pytest.fixture
async def victim_of_composed(composed):
    async with Attacker(composed, "victim") as found:
        yield found


def authority_pem(authority):
    from nsm.services.identity.pem import certificate_of, key_of

    return key_of(authority) + certificate_of(authority)


@pytest.fixture(params=["real", "composed"])
def target(request):
    """Each of the two meshes in turn, for attacks that are tried on both."""
    return request.getfixturevalue("mesh" if request.param == "real" else "composed")
