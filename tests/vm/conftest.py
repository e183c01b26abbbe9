"""Each test function of this folder runs inside a virtual machine that is booted once; pytest stays outside.

A test is given nothing and imports little: Python is thirty times slower in there. Its time limit in seconds, if it
needs another one, is the module's `SECONDS`. A test that asks for the `machine` runs outside, and looks at it.
"""

import inspect
from contextlib import contextmanager

import pytest

from tests.vm.machine import Hung, Machine

SECONDS = 60
MACHINE = pytest.StashKey()


def pytest_itemcollected(item):
    item.add_marker("vm")
    item.add_marker(pytest.mark.timeout(0))  # ours says where the guest stood


@pytest.fixture(scope="session", autouse=True)
def machine(tmp_path_factory, pytestconfig):
    pytestconfig.stash[MACHINE] = machine = Machine(tmp_path_factory.mktemp("vm"))
    yield machine
    machine.stop()


def pytest_pyfunc_call(pyfuncitem):
    if "machine" in inspect.signature(pyfuncitem.obj).parameters:
        return None
    module, machine = pyfuncitem.module, pyfuncitem.funcargs["machine"]
    with told():
        outcome = machine.run(module.__name__, pyfuncitem.name, getattr(module, "SECONDS", SECONDS))
    print(outcome.output, outcome.console, sep="\n")
    if not outcome.passed:
        pytest.fail(f"failed in the virtual machine after {outcome.seconds:.1f} s", pytrace=False)
    return True


@contextmanager
def told():
    """Fails with what the console showed, without our own frames."""
    try:
        yield
        return
    except Hung as hung:
        why = str(hung)
    pytest.fail(why, pytrace=False)


def pytest_terminal_summary(terminalreporter, config):
    machine = config.stash.get(MACHINE, None)
    if machine is not None and machine.kernel:
        terminalreporter.write_line(f"kernel {machine.kernel} in qemu, booted in {machine.boot_seconds:.1f} s")
