"""docs/metrics.md and the dashboards speak of metrics that there are."""

import importlib.util
import json
import re
import sys

import pytest

from tests.docs.pages import ROOT

DASHBOARDS = ROOT / "k8s" / "metrics" / "grafana"
FOUND_BY_PROMETHEUS = {"component", "node", "pod", "le"}
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
WORDS = {"sum", "rate", "by", "count", "min", "max", "time", "histogram_quantile", "label_values"}


def loaded(file, monkeypatch):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generator(monkeypatch):
    return loaded(ROOT / "docs" / "metrics_page.py", monkeypatch)


def test_the_page_is_not_stale(generator):
    """If it is: `make docs`."""
    assert generator.PAGE.read_text() == generator.page()


def test_the_dashboards_are_not_stale(monkeypatch, tmp_path):
    """If they are: `make dashboards`."""
    module = loaded(ROOT / "scripts" / "dashboards.py", monkeypatch)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    for board in (module.mesh(), module.node(), module.service(), module.wire()):
        board.write()
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_text() for file in DASHBOARDS.iterdir()}
    assert len(written) == 4


def test_names_follow_prometheus_s_conventions(generator):
    for family in generator.families():
        assert re.fullmatch(r"(nsm|client|server)(_[a-z0-9]+)+", family.name), family.name
        assert not family.name.endswith("_total"), family.name
        assert family.about, family.name
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")


def expressions():
    for file in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            yield from (
                pytest.param(each["expr"], id=f"{file.stem}: {panel['title']} {each['refId']}")
                for each in panel.get("targets", ())
            )
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable["definition"], id=f"{file.stem}: ${variable['name']}")


@pytest.mark.parametrize("expression", [*expressions()])
def test_an_expression_names_metrics_and_labels_that_there_are(expression, generator):
    known = {name: set(family.labels) for family in generator.families() for name in generator.names(family)}
    known |= {name: set() for name in OF_PROCESSES}
    bare = re.sub(r'"[^"]*"', '""', re.sub(r"\$\w+|\[[^]]*]", "", expression))
    metrics = re.findall(r"\b(?:nsm|client|server|process)_\w+", bare)
    assert metrics
    assert set(metrics) <= set(known)
    labels = set().union(*(known[name] for name in metrics)) | FOUND_BY_PROMETHEUS
    assert {word for word in re.findall(r"[a-z_]+", bare) if word not in WORDS | {*metrics}} <= labels
    assert bare.count("(") == bare.count(")")
    assert bare.count("{") == bare.count("}")
