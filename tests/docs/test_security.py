"""The table of docs/security.md is what manifests, compose file and Dockerfile say, and there are no other exceptions."""

import re

import pytest
import yaml

from tests.cluster.layout import CHECKOUT

KINDS = {"Deployment", "DaemonSet", "StatefulSet", "Job", "Pod"}
NOBODY = "65532:65532"
USER_OF_IMAGE = {
    "forwarder-kernel": "0:65532",
    "forwarder-vpp": "0:65532",
    "forwarder-sriov": "0:65532",
    "nse-vl3": "0:65532",
    "lb-vl3": "0:65532",
    "csi-driver": "0:0",
    "nse-passthrough": "0:65532",
    "nse-firewall": "0:65532",
}


def rows():
    """The table, by container: user, capabilities, and what it has besides."""
    page = (CHECKOUT / "docs/security.md").read_text()
    section = page.split("## How containers run\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {name.strip("`"): (user, capabilities, besides, why) for name, user, capabilities, besides, why in cells[2:]}


EXCEPTIONS = rows()


def documents():
    """Every object of k8s/, and every patch of a kustomization that has containers."""
    for path in sorted(path for path in (CHECKOUT / "k8s").rglob("*.yaml") if "chart" not in path.parts):
        for item in yaml.safe_load_all(path.read_text()):
            if not isinstance(item, dict):
                continue
            if item.get("kind") in KINDS:
                yield path, item
            for patch in item.get("patches", []) if item.get("kind") in {"Kustomization", "Component"} else []:
                patched = yaml.safe_load(patch["patch"])
                if isinstance(patched, dict):
                    yield path, patched


def manifests():
    """The containers with images of ours that k8s/ starts: folder, pod, container. Patches of others have no image."""
    for path, item in documents():
        pod = item["spec"] if item["kind"] == "Pod" else item.get("spec", {}).get("template", {}).get("spec", {})
        for each in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            if "image" in each:
                yield pytest.param(pod, each, id=f"{path.relative_to(CHECKOUT)}:{each['name']}")


def besides_of(container):
    return EXCEPTIONS.get(container["name"], ("", "", "", ""))[2]


def image_of(container):
    return re.search(r"/([^/:]+)(:|$)", container["image"].replace("${NSM_VERSION:-", ""))[1]


def user_of(pod, container):
    """Who it runs as: the container says so, or its pod, or its image."""
    both = {**pod.get("securityContext", {}), **container["securityContext"]}
    image = USER_OF_IMAGE.get(image_of(container), NOBODY).split(":")
    return f"{both.get('runAsUser', image[0])}:{both.get('runAsGroup', image[1])}"


@pytest.mark.parametrize(("pod", "container"), list(manifests()))
def test_a_container_of_a_cluster_has_no_more_than_the_table_says(pod, container):
    user, capabilities, besides, _why = EXCEPTIONS.get(container["name"], (NOBODY, "none", "", ""))
    context, of_pod = container["securityContext"], pod.get("securityContext", {})
    assert user_of(pod, container) == user
    assert context["readOnlyRootFilesystem"]
    assert context.get("privileged", False) == ("`privileged`" in besides)
    for sharing in ("hostPID", "hostNetwork", "hostIPC"):
        assert bool(pod.get(sharing)) == any(sharing in besides_of(each) for each in pod["containers"])
    if not user.startswith("0:"):
        assert {**of_pod, **context}["runAsNonRoot"] is True
    if not context.get("privileged"):
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert named(context["capabilities"].get("add", [])) == capabilities
        assert {**of_pod, **context}["seccompProfile"] == {"type": "RuntimeDefault"}
    else:
        assert capabilities == "all"
        assert "without a seccomp profile" in besides


def named(capabilities):
    return ", ".join(f"`{each}`" for each in capabilities) or "none"


def services():
    return yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("name", list(services()))
def test_a_service_of_the_compose_file_has_no_more_than_the_table_says(name):
    service = services()[name]
    _, capabilities, _, _ = EXCEPTIONS.get(image_of(service), (NOBODY, "none", "", ""))
    assert service["cap_drop"] == ["ALL"]
    assert named(service.get("cap_add", [])) == capabilities
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "user", "devices"} & service.keys()


def stages():
    """The Dockerfile's stages: name, the one that it is from, and the last user that it says."""
    found = {}
    for line in (CHECKOUT / "Dockerfile").read_text().splitlines():
        if (begins := re.fullmatch(r"FROM (\S+) AS (\S+)", line)) is not None:
            name = begins[2]
            found[name] = found.get(begins[1], "0:0")
        elif line.startswith("USER "):
            found[name] = line.removeprefix("USER ")
    return found


def images():
    """Those that scripts/images builds."""
    script = (CHECKOUT / "scripts/images").read_text()
    return re.search(r'^ALL="(.*)"', script, re.MULTILINE)[1].split()


@pytest.mark.parametrize("image", images())
def test_an_image_is_nobody_s_unless_the_table_says_otherwise(image):
    assert stages()[image] == EXCEPTIONS.get(image, (NOBODY,))[0] == USER_OF_IMAGE.get(image, NOBODY)


def test_every_row_is_a_container_that_there_is_and_says_why():
    names = {each.values[1]["name"] for each in manifests()}
    for name, (user, *_, why) in EXCEPTIONS.items():
        assert name in names
        assert re.fullmatch(r"\d+:\d+", user)
        assert len(why) > 20
