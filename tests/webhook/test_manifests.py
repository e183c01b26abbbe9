"""The manifests say what the code does."""

from pathlib import Path

import yaml

from nsm.chains.config import load
from nsm.webhook.config import WebhookConfig
from nsm.webhook.configuration import configuration
from nsm.webhook.registration import CONFIGURATIONS

FOLDER = Path(__file__).parents[2] / "k8s/webhook"


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def deployment():
    return documents("deployment.yaml")[0]


def configured():
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    field = {"metadata.namespace": "nsm-system"}
    values = {
        each["name"]: each["value"] if "value" in each else field[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }
    return load(WebhookConfig, values)


def test_the_deployments_variables_are_taken():
    loaded = configured()
    assert loaded.warnings == ()
    (service,) = documents("service.yaml")
    assert loaded.config.host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    assert loaded.config.listen_on == f"tcp://:{container['ports'][0]['containerPort']}"


def test_the_written_configuration_is_the_one_that_the_webhook_would_register():
    config = configured().config
    (written,) = documents("spire/configuration.yaml")
    assert written["metadata"]["labels"].pop("spiffe.io/webhook") == "true"
    recipe = config.recipe(native=True)
    assert written == configuration(config.name, config.service_name, config.namespace, recipe)


def test_the_role_names_the_configuration_that_is_registered():
    _, role, _ = documents("rbac.yaml")
    (named,) = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert named["resourceNames"] == [configured().config.name]
    assert named["resources"] == [CONFIGURATIONS.plural]
