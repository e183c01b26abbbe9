"""The tables of variables in docs/from-upstream.md: what they say is what the code does."""

import re

import pytest

from nsm.chains.config import Common, ConfigError
from nsm.chains.config.loader import describe, load
from tests.docs.pages import ROOT, generator
from tests.k8s.upstream.between import TABLE as BETWEEN
from tests.k8s.upstream.examples import TABLE

PAGE = ROOT / "docs" / "from-upstream.md"
COMPONENTS = {"Every component": Common, **generator().COMPONENTS}
VERDICTS = {"same", "differs", "refused", "not read"}


def rows():
    """Component, variable, upstream's default as it is written, and what is said of it here."""
    return list(_rows())


def _rows():
    text = PAGE.read_text()
    for section in re.split(r"^### ", text[: text.index("## What is not supported")], flags=re.MULTILINE)[1:]:
        component = section.partition("\n")[0]
        for line in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
            names, default, here = line.split(" | ")
            verdict = re.match(r"[a-z ]+", here)[0].strip()
            for name in re.findall(r"`([A-Z_]+)`", names):
                yield pytest.param(component, name, default, verdict, id=f"{component}-{name}")


@pytest.mark.parametrize(("component", "name", "default", "verdict"), rows())
def test_a_variable_is_treated_as_its_row_says(component, name, default, verdict):
    known = {variable: ours for variable, ours, _ in describe(COMPONENTS[component])}
    assert verdict.startswith(tuple(VERDICTS))
    if verdict.startswith("not read"):
        assert name not in known
        return
    assert name in known
    upstream = default.partition("`")[2].partition("`")[0]
    if verdict.startswith(("same", "refused")):
        assert known[name] == upstream
    assert is_refused(COMPONENTS[component], name, known[name]) == verdict.startswith("refused")


def is_refused(kind, name, default):
    """Whether another value than the default is said not to be supported."""
    other = {"true": "false", "false": "true"}.get(default, "7s")
    try:
        load(kind, {name: other})
    except ConfigError as error:
        return "is not supported; leave it unset" in str(error)
    return False


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_refused_variable_has_a_row(component):
    said = {row.values[1] for row in rows() if row.values[0] in (component, "Every component")}
    kind = COMPONENTS[component]
    assert {name for name, default, _ in describe(kind) if is_refused(kind, name, default)} <= said


def test_the_page_says_of_just_those_examples_that_are_run_that_they_are():
    """What `make test-k8s` runs; `basic` is the system that they run in."""
    rows = re.findall(r"^\| (`.*`) \| run\b", PAGE.read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([\w/-]+)`", row)}
    assert told == {"basic", *TABLE, *BETWEEN}
