"""The code, the files and the commands that the pages show."""

import asyncio
import inspect
import json
import re
import sys
import textwrap
import types
from importlib.metadata import entry_points

import pytest

from nsm.chains.testing.clock import VirtualTimeLoop
from nsm.mesh import topology
from nsm.mesh.tree import tree
from tests.docs.pages import PAGES, ROOT, blocks, name_of

WITH_CODE = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs_and_its_tests_pass(page, monkeypatch):
    """The blocks of a page are one module; its coroutines `test_…` run by virtual time, as the page says."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page, "python"):
        if len(block.words) == 1:
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, page, "exec"), module.__dict__)
    for test in [each for name, each in vars(module).items() if name.startswith("test_")]:
        assert inspect.iscoroutinefunction(test)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test())


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_an_excerpt_is_what_the_file_says(page):
    """A block ```python from=FILE stands in that file, line by line; a list in it may be an argument there."""
    for block in blocks(page, "python"):
        if len(block.words) > 1 and block.words[1].startswith("from="):
            file = ROOT / block.words[1].removeprefix("from=")
            lines = [_plain(line) for line in file.read_text().splitlines()]
            wanted = [_plain(line) for line in block.text.splitlines()]
            starts = range(len(lines) - len(wanted) + 1)
            assert any(lines[start : start + len(wanted)] == wanted for start in starts), f"line {block.line}"


def _plain(line):
    return "]" if line.strip() == "]," else line.strip()


def test_there_is_code_to_run():
    """A fence that is written otherwise would hide everything from the tests above."""
    shown = {name_of(page) for page in WITH_CODE}
    assert {"docs/elements.md", "docs/architecture.md"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_topology_of_a_page_describes_a_mesh(page):
    for block in blocks(page, "yaml"):
        topology.parse(textwrap.dedent(block.text), name_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_exist(page):
    """Those of `nsm`, and the targets of make."""
    commands = {point.name for point in entry_points(group="nsm.commands")}
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    assert set(re.findall(r"(?:^ *\$ |`|exec \w+ -- )nsm ([a-z][a-z0-9-]+)", text, re.MULTILINE)) <= commands
    assert set(re.findall(r"(?:^ *\$ |`|^    )make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets


def test_the_status_that_pages_show_is_what_the_command_prints():
    """Of the wire that one of them shows as JSON."""
    page = ROOT / "docs" / "local-mesh.md"
    (wire,) = re.findall(r'^\{"client":.*$', page.read_text(), re.MULTILINE)
    runs = {"identity": "identity", "registry-node-1": "registry", "nsmgr-node-1": "nsmgr"}
    runs |= {"forwarder-node-1": "forwarder-kernel", "endpoint": "nse", "client": "nsc"}
    components = [
        {"name": name, "command": command, "node": "node-1", "pid": 12345, "state": "ready", "last_warning": ""}
        for name, command in runs.items()
    ]
    nodes = [{"name": "node-1", "address": ""}]
    printed = tree({"nodes": nodes, "links": [], "components": components, "wires": [json.loads(wire)]})
    assert printed[0] == "node-1"
    for shown in (page, ROOT / "README.md"):
        lines = [re.sub(r"pid \d+", "pid 12345", line.strip()) for line in shown.read_text().splitlines()]
        assert {line.strip() for line in printed[-2:]} <= set(lines)
    assert {line.strip() for line in printed} <= {
        re.sub(r"pid \d+", "pid 12345", line.strip()) for line in page.read_text().splitlines()
    }
