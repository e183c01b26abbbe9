"""What the manifests say, however they are put together: versions, privileges, limits."""

import re
import shutil
import tomllib

import pytest
import yaml

from nsm.chains.config import load
from tests.cluster.layout import CHECKOUT
from tests.docs.pages import generator
from tests.k8s.manifests import CARDS, built
from tests.k8s.system import EXAMPLES, MANIFESTS

VARIANTS = ("hosts", "interdomain", "memory", "metrics", "spire", "sriov", "view", "vpp")
VERSION = tomllib.loads((CHECKOUT / "services/pyproject.toml").read_text())["project"]["version"]
CAPABILITIES = {
    "forwarder-kernel": ["NET_ADMIN", "NET_BROADCAST", "SYS_ADMIN"],
    "forwarder-vpp": ["NET_ADMIN", "NET_BROADCAST", "SYS_ADMIN", "NET_RAW", "IPC_LOCK"],
    "nse-vl3": ["NET_ADMIN", "NET_BIND_SERVICE"],
    "lb-vl3": ["NET_ADMIN"],
    "nse-firewall": ["NET_ADMIN"],
    "nse-passthrough": ["NET_ADMIN"],
}
PRIVILEGED = {"csi-driver", "identity-csi-driver", "forwarder-sriov"}
"""Kubernetes lets nobody else make mounts that the kubelet sees, or give devices to drivers and to control groups."""
SOME_NODES = {"forwarder-sriov": {"networkservicemesh.io/sriov": "true"}}
"""What is not for all nodes."""


def workloads(folder):
    return [item for item in built(folder) if item["kind"] in {"Deployment", "DaemonSet", "Pod"}]


def pod_of(workload):
    return workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]


def containers(folder):
    return [each for item in workloads(folder) for each in pod_of(item)["containers"]]


CLUSTERS = [EXAMPLES / "two-clusters" / name for name in ("cluster1", "cluster2")]
WHOLE = [MANIFESTS, *(MANIFESTS / "variants" / name for name in VARIANTS), *CLUSTERS]


def examples():
    return sorted(path.parent for path in EXAMPLES.glob("*/check"))


@pytest.mark.parametrize("folder", [*WHOLE, *examples()], ids=lambda folder: folder.name)
def test_every_image_has_the_version_of_this_checkout(folder):
    images = [each["image"] for each in containers(folder)]
    variables = [entry["value"] for each in containers(folder) for entry in each.get("env", []) if "value" in entry]
    for name in [*images, *(value for value in variables if value.startswith("localhost/nsm/"))]:
        assert name.startswith("localhost/nsm/")
        assert name.endswith(f":{VERSION}")


def test_who_has_the_images_elsewhere_says_so_once(tmp_path):
    """As docs/kubernetes.md says; the examples take them from there too."""
    manifests = shutil.copytree(MANIFESTS, tmp_path / "k8s")
    version = manifests / "version/kustomization.yaml"
    version.write_text(
        re.sub(r"- name: localhost/(.*)", r"\g<0>\n    newName: registry.example/\1", version.read_text())
    )
    for folder in [*WHOLE, *examples(), MANIFESTS / "spire/csi-driver"]:
        text = yaml.safe_dump_all(built(manifests / folder.relative_to(MANIFESTS)))
        assert "image: registry.example/nsm/" in text
        assert "localhost/" not in text, folder


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
@pytest.mark.parametrize("folder", [*WHOLE, *examples()], ids=lambda folder: folder.name)
def test_components_take_all_variables_whatever_family_the_clusters_addresses_are_of(folder, address, tmp_path):
    """Of which `10.0.0.1` stands for any name that the cluster fills in, too. Files of nodes are not here."""
    kept = {each["metadata"]["name"]: each.get("data", {}) for each in built(folder) if each["kind"] == "ConfigMap"}
    cards = tmp_path / "sriov.config"
    cards.write_text(CARDS)
    components = generator().COMPONENTS
    for each in containers(folder):
        kind = components.get(image_of(each))
        if kind is not None and "command" not in each:
            given = environment(each, address, kept)
            given |= {"NSM_SRIOV_CONFIG_FILE": str(cards)} if "NSM_SRIOV_CONFIG_FILE" in given else {}
            assert load(kind, given).warnings == (), each["name"]


def image_of(container):
    return container["image"].rpartition("/")[2].partition(":")[0]


def environment(container, filled_in, kept=None):
    """The variables of a container, with those put in that values name as `$(NAME)`, or that ConfigMaps have."""
    values = {}
    for entry in container.get("env", []):
        value = entry.get("value", filled_in)
        if key := entry.get("valueFrom", {}).get("configMapKeyRef"):
            value = kept[key["name"]][key["key"]]
        values[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], value)
    return values


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_containers_have_no_more_than_they_need(folder):
    for item in workloads(folder):
        assert item["metadata"]["namespace"] == "nsm-system"
        for each in pod_of(item)["containers"] + pod_of(item).get("initContainers", []):
            context = each["securityContext"]
            assert context["readOnlyRootFilesystem"], each["name"]
            assert context.get("privileged", False) == (each["name"] in PRIVILEGED)
            if each["name"] not in PRIVILEGED:
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"]["drop"] == ["ALL"]
                assert context["capabilities"].get("add", []) == CAPABILITIES.get(each["name"], [])


@pytest.mark.parametrize("folder", [*WHOLE, MANIFESTS / "spire/csi-driver"], ids=lambda folder: folder.name)
def test_nobody_waits_for_ever_on_windows_or_on_what_is_no_node(folder):
    """What is on all nodes tolerates their taints too: a pod that cannot start there would hold up all others' update."""
    for item in workloads(folder):
        pod = pod_of(item)
        name = item["metadata"]["name"]
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", **SOME_NODES.get(name, {})}, name
        if item["kind"] == "DaemonSet":
            assert pod["tolerations"] == [{"operator": "Exists"}]
            wanted = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (term,) = wanted["nodeSelectorTerms"]
            assert {each["key"]: each["operator"] for each in term["matchExpressions"]} == {
                "type": "NotIn",
                "eks.amazonaws.com/compute-type": "NotIn",
            }


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_containers_say_what_memory_they_take(folder):
    first = [each for item in workloads(folder) for each in pod_of(item).get("initContainers", [])]
    for each in [*containers(folder), *first]:
        assert set(each["resources"]["requests"]) == {"cpu", "memory"}, each["name"]
        assert "memory" in each["resources"]["limits"], each["name"]


@pytest.mark.parametrize("folder", [*WHOLE, MANIFESTS / "spire/csi-driver"], ids=lambda folder: folder.name)
def test_all_that_is_applied_is_found_by_one_label(folder):
    for item in built(folder):
        found = item["metadata"].get("labels", {}).get("app.kubernetes.io/part-of")
        assert found == "networkservicemesh", (item["kind"], item["metadata"]["name"])


@pytest.mark.parametrize("folder", [*WHOLE, MANIFESTS / "spire/csi-driver"], ids=lambda folder: folder.name)
def test_applications_do_not_push_away_what_their_wires_need(folder):
    """By classes of priority that come along: those of Kubernetes itself are not for all namespaces everywhere."""
    items = built(folder)
    classes = {item["metadata"]["name"] for item in items if item["kind"] == "PriorityClass"}
    for item in workloads(folder):
        name = item["metadata"]["name"]
        assert (pod_of(item).get("priorityClassName") in classes) == (
            name not in {"prefixes", "cluster-info", "view"}
        ), name
    of_nodes = {item["metadata"]["name"] for item in items if item["kind"] == "DaemonSet"}
    many = {item["metadata"]["name"] for item in workloads(folder) if item["spec"].get("replicas", 1) > 1} - of_nodes
    assert many == {item["metadata"]["name"] for item in items if item["kind"] == "PodDisruptionBudget"}


@pytest.mark.parametrize("folder", [*WHOLE, *examples()], ids=lambda folder: folder.name)
def test_nobody_is_killed_because_identities_are_not_given_but_who_gives_them(folder):
    for each in containers(folder):
        command = each.get("livenessProbe", {}).get("exec", {}).get("command", [])
        assert ("--alive" in command) == (command[:2] == ["nsm", "health"] and each["name"] != "identity"), each["name"]
        if "readinessProbe" in each and command:
            assert each["readinessProbe"]["exec"]["command"] == [word for word in command if word != "--alive"]


PATIENCE = {"startupProbe": 120, "readinessProbe": 30, "livenessProbe": 120}
"""Seconds of nothing but failures until Kubernetes acts on them."""


@pytest.mark.parametrize(
    "folder", [*WHOLE, *examples(), MANIFESTS / "spire/csi-driver"], ids=lambda folder: folder.name
)
def test_on_a_busy_node_nobody_is_taken_out_of_service_or_started_again(folder):
    """Where nothing is said a probe has a second, in which a busy node does not even start `test`."""
    probes = [(each["name"], kind, each[kind]) for each in containers(folder) for kind in PATIENCE if kind in each]
    assert probes or folder == EXAMPLES / "namespace"
    for name, kind, probe in probes:
        assert probe["timeoutSeconds"] >= 10, (name, kind)
        is_process = probe.get("exec", {}).get("command", [])[:1] == ["nsm"]
        patience = max(PATIENCE[kind], 120 * is_process)
        assert probe["periodSeconds"] * probe["failureThreshold"] >= patience, (name, kind)


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_no_limit_of_a_processor_makes_a_component_slow(folder):
    """What a node has left over they may use: a webhook that is held back keeps the whole cluster waiting."""
    for each in containers(folder):
        assert "cpu" not in each["resources"]["limits"], each["name"]


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_replicas_are_spread_without_regard_to_those_that_a_rollout_takes_away(folder):
    for item in workloads(folder):
        if item["spec"].get("replicas", 1) > 1:
            (spread,) = pod_of(item)["topologySpreadConstraints"]
            assert spread["labelSelector"]["matchLabels"] == item["spec"]["selector"]["matchLabels"]
            assert spread["matchLabelKeys"] == ["pod-template-hash"]


def socket_of(folder):
    """What says who may use the manager's socket: the groups of those who make it and of those who use it, its mode."""
    pods = {item["metadata"]["name"]: pod_of(item) for item in workloads(folder)}
    (makes,), (manager,) = pods["nsmgr"]["initContainers"], pods["nsmgr"]["containers"]
    (forwarder,), (webhook,) = pods["forwarder-kernel"]["containers"], pods["webhook"]["containers"]
    groups = {each["securityContext"]["runAsGroup"] for each in (makes, manager, forwarder)}
    groups.add(int(environment(webhook, "")["NSM_SIDECAR_USER"].partition(":")[2]))
    return groups, re.search(r"chmod (\d+)", makes["command"][-1])[1], environment(manager, "").get("NSM_SOCKET_MODE")


def test_the_managers_socket_is_for_its_group_for_another_or_for_everybody(tmp_path):
    """By default for its own; pods of others are told which it is."""
    shutil.copytree(MANIFESTS, tmp_path / "k8s")
    group = tmp_path / "k8s/open-socket/group/group.yaml"
    group.write_text(group.read_text().replace('"0"', '"2000"'))
    said = {}
    for component in ("open-socket/group", "open-socket/all", "upstream"):
        folder = tmp_path / component.replace("/", "-")
        folder.mkdir()
        made = {"resources": ["../k8s"], "components": [f"../k8s/{component}"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
        said[component] = socket_of(folder)
    assert socket_of(MANIFESTS) == ({65532}, "0770", None)
    assert said["open-socket/group"] == ({2000}, "0770", None)
    assert said["open-socket/all"] == said["upstream"] == ({65532}, "0775", "0666")


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_who_may_do_nothing_in_the_cluster_has_no_token(folder):
    items = built(folder)
    bound = {
        subject["name"]
        for item in items
        if item["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        for subject in item["subjects"]
    }
    tokenless = {
        item["metadata"]["name"]: item.get("automountServiceAccountToken", True) is False
        for item in items
        if item["kind"] == "ServiceAccount"
    }
    for item in workloads(folder):
        account = pod_of(item)["serviceAccountName"]
        has_token = pod_of(item).get("automountServiceAccountToken", not tokenless[account])
        assert has_token == (account in bound), account


@pytest.mark.parametrize("folder", WHOLE, ids=lambda folder: folder.name)
def test_what_a_pod_serves_policies_of_the_network_let_in_and_nothing_else(folder):
    """Pods in their node's network are ruled by none."""
    policies = [item["spec"] for item in built(folder) if item["kind"] == "NetworkPolicy"]
    for item in workloads(folder):
        if pod_of(item).get("hostNetwork"):
            continue
        labels = item["spec"]["template"]["metadata"]["labels"]
        served = {port["containerPort"] for each in pod_of(item)["containers"] for port in each.get("ports", [])}
        rules = [rule for policy in policies if selects(policy, labels) for rule in policy.get("ingress", [])]
        assert {port["port"] for rule in rules for port in rule["ports"]} == served, item["metadata"]["name"]


def selects(policy, labels):
    """Whether a policy rules pods with `labels`; one with expressions has no say in what comes in."""
    wanted = policy["podSelector"].get("matchLabels", {})
    return "matchExpressions" not in policy["podSelector"] and wanted.items() <= labels.items()


def test_by_spire_nobody_has_a_folder_of_the_node_for_identities():
    volumes = [
        volume
        for item in workloads(MANIFESTS / "variants/spire")
        for volume in pod_of(item).get("volumes", [])
        if volume["name"] in {"identity", "spire-agent-socket"}
    ]
    assert [volume["csi"]["driver"] for volume in volumes] == ["csi.spiffe.io"] * 4
