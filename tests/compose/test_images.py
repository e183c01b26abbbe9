"""What is in each image, and what is not."""

import json
import re
import textwrap

import pytest

from scripts import sbom
from tests.compose.engine import CHECKOUT, IMAGES, VERSION, docker, inspect, name_of

SDK = {"nsm-apis", "nsm-chains"}
DISTRIBUTIONS = {
    "registry": SDK | {"nsm-services"},
    "nsmgr": SDK | {"nsm-services"},
    "nsmgr-proxy": SDK | {"nsm-services"},
    "registry-proxy": SDK | {"nsm-services"},
    "forwarder-kernel": SDK | {"nsm-forwarder-kernel"},
    "forwarder-vpp": SDK | {"nsm-forwarder-kernel", "nsm-forwarder-vpp"},
    "nse": SDK | {"nsm-services"},
    "nse-remote-vlan": SDK | {"nsm-services"},
    "nse-vl3": SDK | {"nsm-services"},
    "lb-vl3": SDK | {"nsm-services"},
    "ipam": SDK | {"nsm-services"},
    "nse-passthrough": SDK | {"nsm-services"},
    "nse-firewall": SDK | {"nsm-services"},
    "nse-supplier": SDK | {"nsm-services"},
    "forwarder-sriov": SDK | {"nsm-forwarder-kernel", "nsm-forwarder-sriov"},
    "nse-vfio": SDK | {"nsm-services"},
    "nsc": SDK | {"nsm-services"},
    "nsc-init": SDK | {"nsm-services"},
    "identity": SDK | {"nsm-services"},
    "webhook": SDK | {"nsm-services", "nsm-webhook"},
    "prefixes": SDK | {"nsm-services"},
    "map-ip": SDK | {"nsm-services"},
    "cluster-info": SDK | {"nsm-services"},
    "csi-driver": SDK | {"nsm-services"},
    "view": SDK | {"nsm-services"},
    "nsc-tools": SDK | {"nsm-services"},
}
ROOTS = {
    "forwarder-kernel": (0, 65532),
    "forwarder-vpp": (0, 65532),
    "forwarder-sriov": (0, 65532),
    "csi-driver": (0, 0),
    "nse-passthrough": (0, 65532),
    "nse-firewall": (0, 65532),
    "nse-vl3": (0, 65532),
    "lb-vl3": (0, 65532),
}
"""Those that need privileges; all others are nobody."""
OF_CLUSTERS = {"webhook", "prefixes", "map-ip", "cluster-info", "csi-driver"}
"""Nothing but Kubernetes runs them, which asks for their health in other ways."""
LARGEST = 60e6
"""Bytes that an image may have above its base."""
BUILD_TOOLS = ["pip", "pip3", "gcc", "cc", "ld", "make"]

SAY = """
    import importlib.metadata, json, os, shutil, sys
    distributions = {each.name: each.version for each in importlib.metadata.distributions(path=[p for p in sys.path if p.startswith("/opt/nsm")])}
    tools = [tool for tool in TOOLS if shutil.which(tool)]
    print(json.dumps({"distributions": distributions, "uid": os.getuid(), "gid": os.getgid(), "tools": tools}))
"""


@pytest.fixture(scope="module")
def inside():
    """What the Python of each image says of where it is."""
    program = f"TOOLS = {BUILD_TOOLS}\n{textwrap.dedent(SAY)}"
    ways = ["--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--entrypoint", "python"]
    return {image: json.loads(docker("run", *ways, image, "-c", program)) for image in IMAGES}


def lowered(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints():
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return {lowered(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def above_base(image):
    """Bytes that an image has and what it stands on has not: the layers behind the base's."""
    sizes = docker("image", "history", "-H=false", "--format", "{{.Size}} {{.CreatedBy}}", image).splitlines()
    ours = next(i for i, line in enumerate(sizes) if "ENV PATH=/opt/nsm" in line)
    return sum(int(line.split()[0]) for line in sizes[: ours + 1])


def test_every_image_is_known_here():
    assert {name_of(image) for image in IMAGES} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_an_image_holds_its_distributions_and_no_others(image, inside):
    found = {name for name in inside[image]["distributions"] if name.startswith("nsm-")}
    assert found == DISTRIBUTIONS[name_of(image)]


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_dependencies_have_the_pinned_versions(image, inside):
    pinned = constraints()
    others = {lowered(n): v for n, v in inside[image]["distributions"].items() if not n.startswith("nsm-")}
    assert others == {name: pinned.get(name) for name in others}


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_its_document_names_all_that_is_in_it(image, inside):
    document = json.loads(sbom.document(name_of(image), VERSION, sbom.look(image)))
    urls = [each["purl"] for each in document["components"]]
    assert {url for url in urls if url.startswith("pkg:pypi/")} == {
        f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        for name, version in inside[image]["distributions"].items()
    }
    assert any(url.startswith("pkg:deb/debian/libc6@") for url in urls)


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_there_is_no_build_tool_in_it(image, inside):
    assert inside[image]["tools"] == []


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_only_what_needs_privileges_is_root(image, inside):
    assert (inside[image]["uid"], inside[image]["gid"]) == ROOTS.get(name_of(image), (65532, 65532))


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_an_image_is_small(image):
    assert above_base(image) <= LARGEST


def test_the_documented_sizes_are_those_of_the_images():
    """Within two megabytes: dependencies of the same version differ between Python versions and architectures."""
    page = (CHECKOUT / "docs" / "containers.md").read_text()
    told = {name: int(size) for name, size in re.findall(r"^\| `([a-z0-9-]+)` \|.*?\| (\d+) MB \|", page, re.MULTILINE)}
    assert set(told) == set(DISTRIBUTIONS)
    for image in IMAGES:
        assert above_base(image) / 1e6 == pytest.approx(told[name_of(image)], abs=2), image


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_an_image_says_what_it_is_and_how_to_ask_for_its_health(image):
    config = inspect("image", image)["Config"]
    prefix = "org.opencontainers.image."
    assert config["Labels"][f"{prefix}version"] == VERSION
    assert config["Labels"][f"{prefix}licenses"] == "Apache-2.0"
    assert config["Labels"][f"{prefix}title"].startswith(f"nsm {name_of(image).removesuffix('-tools')}")
    asks = " ".join(config.get("Healthcheck", {}).get("Test", []))
    assert ("nsm health" in asks) == (name_of(image) not in OF_CLUSTERS)


@pytest.mark.parametrize("image", IMAGES, ids=name_of)
def test_an_image_says_what_is_wrong_with_its_environment_a_line_each(image):
    said = docker("run", "--rm", "--network", "none", "-e", "NSM_LOG_LEVEL=LOUD", image, check=False)
    command = name_of(image).removesuffix("-tools")
    assert said.startswith(f"nsm {command}: NSM_LOG_LEVEL='LOUD': ")
    assert all(line.startswith(f"nsm {command}: NSM_") for line in said.splitlines())


def test_images_share_their_layers():
    """The SDK and its dependencies are there once, whatever the number of images."""
    layers = [inspect("image", image)["RootFS"]["Layers"] for image in IMAGES]
    shared = set(layers[0]).intersection(*layers)
    assert len(shared) >= 2, "the base and the SDK"
