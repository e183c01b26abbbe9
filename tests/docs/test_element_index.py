"""docs/element-index.md is what the code says today."""

import importlib
import importlib.util
import re
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.fixture
def generator(monkeypatch):
    """Dataclasses look their module up by its name."""
    spec = importlib.util.spec_from_file_location("element_index", ROOT / "docs" / "element_index.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "element_index", module)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale(generator):
    """If it is: `make docs`."""
    assert generator.PAGE.read_text() == generator.page()


def test_each_element_can_be_imported_as_the_page_says_and_has_an_example(generator):
    entries = generator.PAGE.read_text().split("\n### ")[1:]
    assert len(entries) == len(generator.elements()) > 70
    for entry in entries:
        name = entry.partition("\n")[0]
        module, imported = re.search(r"^    from (\S+) import (\w+)$", entry, re.M).groups()
        assert imported == name
        assert isinstance(getattr(importlib.import_module(module), name), type)
        assert f"\n    {name}(" in entry
        text, file = re.search(r"^For example `(.*)` in \[(.*?)\]", entry, re.M).groups()
        assert text.removesuffix("…)") in (ROOT / file).read_text()
        assert re.search(r"^[A-Z][^\n]+\. In errors: `[a-z0-9_]+`\.$", entry, re.M), name
