"""The variables that manifests and the compose file set are those that their components have."""

from pathlib import Path

import pytest
import yaml

from nsm.chains.config.names import fault_of, variables_by_component

ROOT = Path(__file__).parents[2]


def containers(value):
    """Every mapping that names an image of ours, wherever it stands."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and "localhost/nsm/" in str(value.get("image", "")):
        yield value
    for each in inner:
        yield from containers(each)


def variables(container):
    found = container.get("env") or container.get("environment") or {}
    return [each["name"] for each in found] if isinstance(found, list) else list(found)


@pytest.mark.parametrize("file", ["docker-compose.yml", "k8s"])
def test_no_manifest_sets_a_variable_that_its_component_has_not(file):
    """It would be a warning in a log that nobody reads."""
    files = (
        [ROOT / file]
        if (ROOT / file).is_file()
        else sorted(path for path in (ROOT / file).rglob("*.yaml") if "chart" not in path.parts)
    )
    seen = 0
    for path in files:
        for document in yaml.safe_load_all(path.read_text()):
            for container in containers(document):
                component = container["image"].rpartition("/")[2].partition(":")[0]
                if component in variables_by_component():
                    seen += len(variables(container))
                    faults = [fault_of(name, component) for name in variables(container)]
                    assert [fault for fault in faults if fault] == [], path
    assert seen > 10
