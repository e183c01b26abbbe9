"""Where tests stand: an element's in a file of its name, and what several need in modules that are no tests."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import nsm.chains.elements
import nsm.chains.forwarding
import nsm.chains.registry
import nsm.forwarder_kernel
import nsm.forwarder_vpp
from nsm.chains.core import Element, RegistryElement

TESTS = Path(__file__).parents[1]
PLACES = {
    nsm.chains.elements: ("chains/elements",),
    nsm.chains.forwarding: ("chains/forwarding",),
    nsm.chains.registry: ("chains/registry",),
    nsm.forwarder_kernel: ("forwarder_kernel", "system/forwarder_kernel"),
    nsm.forwarder_vpp: ("forwarder_vpp", "system/forwarder_vpp"),
}


def elements():
    """Each importable element, and the files that may be its tests', the package's folders mirrored."""
    for package, folders in PLACES.items():
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            *inner, name = found.name.removeprefix(f"{package.__name__}.").split(".")
            files = [TESTS.joinpath(folder, *inner, f"test_{name}.py") for folder in folders]
            for kind in vars(module).values():
                is_element = inspect.isclass(kind) and issubclass(kind, Element | RegistryElement)
                if is_element and kind.__module__ == found.name and not kind.__name__.startswith("_"):
                    yield kind.__name__, files


ELEMENTS = dict(elements())


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_is_tested_in_a_file_of_its_module_s_name(name):
    texts = [file.read_text() for file in ELEMENTS[name] if file.exists()]
    shown = " or ".join(str(file.relative_to(TESTS.parent)) for file in ELEMENTS[name])
    assert any(name in text for text in texts), f"{name} has no test of its own: write one in {shown}"


def test_there_are_elements():
    assert len(ELEMENTS) > 80


def imports(file):
    """What a file imports, by the modules' full names."""
    tree = ast.parse(file.read_text())
    package = file.relative_to(TESTS.parent).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name != "*":  # runs all of its tests again
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{each.name}" for each in node.names)


def test_no_test_imports_from_another_one():
    """What several need stands in a module beside them, which is no test."""
    tests = {".".join(each.relative_to(TESTS.parent).with_suffix("").parts) for each in TESTS.rglob("test_*.py")}
    found = {
        file.relative_to(TESTS).as_posix(): sorted(tests.intersection(imports(file))) for file in TESTS.rglob("*.py")
    }
    assert {file: imported for file, imported in found.items() if imported} == {}
