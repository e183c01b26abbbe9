"""The variables, and what the cluster's version says."""

import os
import subprocess
import sys

import pytest

from nsm.chains.config import ConfigError, load
from nsm.chains.core import InvalidRequest
from nsm.webhook.config import WebhookConfig
from nsm.webhook.version import Version


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NSM_ENVS", "A=1,B", "expected NAME=value,NAME=value; 'B' is not one"),
        ("NSM_ENVS", "1=2", "'1=2' is not one"),
        ("NSM_WEBHOOK_MODE", "cert-manager", "expected spire or selfregister"),
        ("NSM_SIDECARS", "yes", "expected auto, native or classic"),
        ("NSM_SIDECAR_LIMITS_MEMORY", "80MB", "expected an amount such as 80Mi or 200m"),
        ("NSM_SIDECAR_USER", "nobody", "expected a user id, or user:group such as 65532:65532"),
        ("NSM_CERTIFICATE_LIFETIME", "10s", "expected at least a minute, such as 720h"),
        ("NSM_CONTAINER_IMAGES", "NSC:1", "'NSC:1' does not end in a valid container name"),
        ("NSM_LABELS", "a=b", "expected key:value,key:value"),
        ("NSM_CONTAINER_PREFIX", "-", "expected up to 32 lower-case letters, digits and dashes"),
    ],
)
def test_a_value_that_cannot_work_is_named(variable, value, said):
    with pytest.raises(ConfigError) as caught:
        load(WebhookConfig, {variable: value})
    (fault,) = caught.value.faults
    assert fault.startswith(f"{variable}={value!r}: ")
    assert said in fault


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "no images are configured: set NSM_CONTAINER_IMAGES"),
        ({"NSM_CONTAINER_IMAGES": "nsc", "NSM_CERT_FILE_PATH": "/a"}, "NSM_CERT_FILE_PATH and NSM_KEY_FILE_PATH go"),
        ({"NSM_CONTAINER_IMAGES": "n" * 60, "NSM_CONTAINER_PREFIX": "cmd-"}, "shorten NSM_CONTAINER_PREFIX"),
        (
            {
                "NSM_CONTAINER_IMAGES": "nsc",
                "NSM_CERT_FILE_PATH": "/a",
                "NSM_KEY_FILE_PATH": "/b",
                "NSM_WEBHOOK_MODE": "selfregister",
            },
            "needs NSM_CA_BUNDLE_FILE_PATH",
        ),
    ],
)
def test_variables_that_do_not_fit_each_other_are_one_line(variables, said):
    with pytest.raises(ConfigError) as caught:
        load(WebhookConfig, variables)
    (fault,) = caught.value.faults
    assert said in fault


def test_a_webhook_without_a_cluster_says_where_it_looked(tmp_path):
    environment = {"NSM_CONTAINER_IMAGES": "nsc", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "nsm.chains", "webhook"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "not in a pod, KUBECONFIG is not set and there is no ~/.kube/config" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("major", "minor", "native", "conditions"),
    [
        ("1", "27", False, False),
        ("1", "28", False, True),
        ("1", "29+", True, True),
        ("1", "34", True, True),
        ("2", "0", True, True),
    ],
)
def test_what_a_cluster_has_goes_by_its_version(major, minor, native, conditions):
    version = Version.of({"major": major, "minor": minor})
    assert (version.has_native_sidecars, version.has_match_conditions) == (native, conditions)
    assert str(version) == f"{major}.{minor.rstrip('+')}"


def test_an_answer_without_a_version_is_none():
    with pytest.raises(ValueError, match="returned no version"):
        Version.of({"major": "", "minor": ""})


@pytest.mark.parametrize(
    ("value", "user"),
    [("", {}), ("0", {"runAsUser": 0}), ("65532:65533", {"runAsUser": 65532, "runAsGroup": 65533})],
)
def test_the_user_of_clients_is_written_as_uid_and_gid(value, user):
    assert load(WebhookConfig, {"NSM_CONTAINER_IMAGES": "nsc", "NSM_SIDECAR_USER": value}).config.sidecar_user == user


def test_native_sidecars_need_an_image_that_keeps_wires():
    config = load(WebhookConfig, {"NSM_INIT_CONTAINER_IMAGES": "nsc-init"}).config
    assert not config.recipe(native=True).native


def test_containers_can_be_called_as_in_upstreams_readmes():
    """`kubectl logs POD -c cmd-nsc`, though the image is called nsc."""
    images = {"NSM_CONTAINER_IMAGES": "localhost/nsm/nsc:1", "NSM_INIT_CONTAINER_IMAGES": "localhost/nsm/nsc-init:1"}
    recipe = load(WebhookConfig, {**images, "NSM_CONTAINER_PREFIX": "cmd-"}).config.recipe(native=True)
    assert [(each.reference, each.container) for each in recipe.images] == [("localhost/nsm/nsc:1", "cmd-nsc")]
    assert [each.container for each in recipe.init_images] == ["cmd-nsc-init"]


def test_images_of_both_kinds_need_names_of_their_own_where_both_are_injected():
    """The API server would refuse every pod that gets them."""
    variables = {"NSM_CONTAINER_IMAGES": "localhost/a/nsc:1", "NSM_INIT_CONTAINER_IMAGES": "localhost/b/nsc:1"}
    config = load(WebhookConfig, variables).config
    with pytest.raises(
        InvalidRequest, match="NSM_INIT_CONTAINER_IMAGES are called 'nsc'; their containers need different names"
    ):
        config.recipe(native=False)
    assert config.recipe(native=True).native  # without the init images
    waiting = load(WebhookConfig, {**variables, "NSM_SIDECARS_TELL_READY": "false"}).config
    with pytest.raises(InvalidRequest, match="are called 'nsc'"):
        waiting.recipe(native=True)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("NSM_MECHANISMS", "kernel,memfi", "NSM_MECHANISMS='kernel,memfi': expected some of kernel, memif, vfio"),
        ("NSM_MECHANISMS", "", "expected some of kernel, memif, vfio"),
        (
            "NSM_ENVS",
            "NSM_LOG_LEVL=DEBUG",
            "NSM_ENVS: NSM_LOG_LEVL is not a variable of nsm nsc; did you mean NSM_LOG_LE",
        ),
    ],
)
def test_what_clients_cannot_have_is_told_when_the_webhook_starts(variable, value, told):
    with pytest.raises(ConfigError) as raised:
        load(WebhookConfig, {"NSM_CONTAINER_IMAGES": "nsc", variable: value})
    assert told in str(raised.value)


def test_only_kernel_wires_inside_the_domain_are_admitted_unless_it_says_otherwise():
    served = load(WebhookConfig, {"NSM_CONTAINER_IMAGES": "nsc"}).config.recipe(native=True).served
    assert (served.mechanisms, served.domains) == ({"KERNEL"}, ())
    variables = {"NSM_CONTAINER_IMAGES": "nsc", "NSM_MECHANISMS": "kernel, memif", "NSM_DOMAINS": "far"}
    served = load(WebhookConfig, variables).config.recipe(native=True).served
    assert (served.mechanisms, served.domains) == ({"KERNEL", "MEMIF"}, ("far",))
