"""The Helm chart installs what the kustomizations install."""

import importlib.util
import subprocess

import pytest
import yaml

from tests.cluster import helm_binary
from tests.cluster.layout import CHECKOUT
from tests.k8s.manifests import built
from tests.k8s.system import MANIFESTS

pytestmark = pytest.mark.timeout(900)  # Helm is built, if it was not yet
CHART = MANIFESTS / "chart"
KEEP = "helm.sh/resource-policy"


@pytest.fixture(scope="module")
def scripts():
    spec = importlib.util.spec_from_file_location("chart", CHECKOUT / "scripts" / "chart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def template(*words, namespace="nsm-system"):
    command = [helm_binary.program(), "template", "nsm", CHART, "--namespace", namespace, "--kube-version", "1.34.0"]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)


def objects(*words, **options):
    done = template(*words, **options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def by_name(found):
    return {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]): each for each in found}


def test_the_chart_is_not_stale(scripts):
    """If it is: `make chart`."""
    files = {path.stem: path.read_text() for path in (CHART / "variants").iterdir()}
    assert files == {name: scripts.written(folder) for name, folder in scripts.variants().items()}


@pytest.mark.parametrize("variant", sorted(path.stem for path in (CHART / "variants").iterdir()))
def test_a_variant_has_the_objects_of_its_kustomization(variant, scripts):
    made = objects("--set", f"variant={variant},createNamespace=true")
    for each in made:
        if each["kind"] == "CustomResourceDefinition":  # or uninstalling would delete all records
            assert each["metadata"]["annotations"].pop(KEEP) == "keep"
            if not each["metadata"]["annotations"]:
                del each["metadata"]["annotations"]
    assert by_name(made) == by_name(built(scripts.variants()[variant]))


def test_images_the_namespace_and_a_component_are_changed_by_values():
    made = objects(
        *("--set", "images.registry=example.com/nsm,images.tag=v9,images.pullSecrets={mine}"),
        *("--set", "components.nsmgr.env.NSM_LOG_LEVEL=DEBUG,components.registry.replicas=3"),
        *("--set", "components.nsmgr.resources.limits.memory=1Gi"),
        namespace="mesh",
    )
    text = yaml.safe_dump_all(made)
    assert "nsm-system" not in text
    assert "localhost/nsm" not in text
    assert not [each for each in made if each["kind"] == "Namespace"]
    manager = by_name(made)["DaemonSet", "mesh", "nsmgr"]["spec"]["template"]["spec"]
    (container,) = manager["containers"]
    assert container["image"] == "example.com/nsm/nsmgr:v9"
    assert {"name": "NSM_LOG_LEVEL", "value": "DEBUG"} in container["env"]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert container["resources"]["requests"]
    assert manager["imagePullSecrets"] == [{"name": "mine"}]
    assert by_name(made)["Deployment", "mesh", "registry"]["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("components.nsmgrr.replicas=2", "the variant default has no nsmgrr"),
        ("variant=everything", "value must be one of"),
        ("images.pullPolicy=Sometimes", "value must be one of"),
        ("imagesTag=v1", "additional properties 'imagesTag' not allowed"),
    ],
)
def test_a_value_that_has_no_effect_is_an_error(value, told):
    done = template("--set", value)
    assert done.returncode == 1
    assert told in done.stderr


def test_the_api_server_accepts_the_chart(system):
    made = template("--set", "createNamespace=true")
    words = ["apply", "--dry-run=server", "-f", "-"]
    system.kubectl(*words, stdin=made.stdout)
