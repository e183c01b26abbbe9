"""The manifests of components in k8s/: their variables are ones that the component reads, with values that it takes."""

from pathlib import Path

import pytest
import yaml

from nsm.chains.config import load
from nsm.services.csi_driver.main import CsiDriverConfig
from nsm.services.identity.main import IdentityConfig
from nsm.services.prefixes.main import PrefixesConfig

FOLDER = Path(__file__).parents[2] / "k8s"
KINDS = {"identity": IdentityConfig, "csi-driver": CsiDriverConfig, "prefixes": PrefixesConfig}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def containers():
    for component, kind in KINDS.items():
        for path in sorted((FOLDER / component).rglob("*.yaml")):
            for document in documents(path):
                if document["kind"] in {"DaemonSet", "Deployment"}:
                    for container in document["spec"]["template"]["spec"]["containers"]:
                        yield pytest.param(kind, container, id=f"{component}-{container['name']}")


@pytest.mark.parametrize(("kind", "container"), list(containers()))
def test_the_variables_of_a_container_are_known_and_good(kind, container):
    environment = {variable["name"]: variable.get("value", "x") for variable in container["env"]}
    loaded = load(kind, environment)
    assert loaded.warnings == ()
    if kind is not PrefixesConfig:
        assert "NODE_NAME" in environment


def test_every_file_belongs_to_a_kustomization():
    for component in KINDS:
        for path in (FOLDER / component).rglob("kustomization.yaml"):
            (document,) = documents(path)
            named = {*document["resources"], *(patch["path"] for patch in document.get("patches", []))}
            assert named == {file.name for file in path.parent.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_roles_name_the_objects_that_the_components_use_by_default():
    identity, prefixes = load(IdentityConfig, {}).config, load(PrefixesConfig, {}).config
    names = {
        name
        for component in ("identity", "prefixes")
        for document in documents(FOLDER / component / "rbac.yaml")
        for rule in document.get("rules", [])
        for name in rule.get("resourceNames", [])
    }
    assert names == {
        identity.authority_secret,
        prefixes.config_map_name,
        prefixes.output_config_map_name,
        "kubeadm-config",
    }
