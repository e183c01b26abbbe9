"""What pods and workloads look like behind the webhook."""

import copy
import re
import subprocess

import pytest

from nsm.webhook.images import images
from tests.webhook.reviews import (
    KEY,
    Cluster,
    containers,
    patch_of,
    pod,
    recipe,
    review,
    template_of,
    variables,
    workload,
)

URLS = "kernel://first/nsm-1?app=x&k=v,kernel://second/nsm-2"
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


async def test_a_pod_gets_an_init_container_and_one_beside_its_own():
    stored = await Cluster(variables=(("NSM_LOG_LEVEL", "DEBUG"),)).store(pod(URLS))
    spec = stored["spec"]
    assert containers(spec) == ["app", "nsc"]
    assert containers(spec, "initContainers") == ["nsc-init"]
    mounts = [
        {"name": "spire-agent-socket", "mountPath": "/run/spire/sockets", "readOnly": True},
        {"name": "nsm-socket", "mountPath": "/var/lib/networkservicemesh", "readOnly": True},
    ]
    for client, image in ((spec["containers"][1], "nsc"), (spec["initContainers"][0], "nsc-init")):
        name = client["env"].pop()
        assert re.fullmatch(rf"\$\(POD_NAME\)-{UUID}", name["value"])
        assert client == {
            "name": image,
            "image": f"localhost/nsm/{image}:1",
            "imagePullPolicy": "IfNotPresent",
            "env": [
                {"name": "NSM_LOG_LEVEL", "value": "DEBUG"},
                {"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///run/spire/sockets/agent.sock"},
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NSM_NETWORK_SERVICES", "value": URLS},
            ],
            "resources": {
                "limits": {"cpu": "200m", "memory": "80Mi"},
                "requests": {"cpu": "100m", "memory": "40Mi"},
            },
            "volumeMounts": mounts,
        }
    assert spec["volumes"] == [
        {"name": "spire-agent-socket", "hostPath": {"path": "/run/spire/sockets", "type": "Directory"}},
        {"name": "nsm-socket", "hostPath": {"path": "/var/lib/networkservicemesh", "type": "Directory"}},
    ]
    assert stored["metadata"]["labels"] == {"spiffe.io/spiffe-id": "true"}


async def test_both_clients_of_a_pod_have_one_name_and_that_of_the_pod_if_it_is_made_up():
    spec = (await Cluster().store(pod(URLS)))["spec"]
    names = [variables(each)["NSM_NAME"] for each in (spec["initContainers"][0], spec["containers"][1])]
    assert names[0] == names[1]
    generated = pod(URLS, generateName="web-")
    del generated["metadata"]["name"]
    spec = (await Cluster().store(generated))["spec"]
    assert variables(spec["containers"][1])["NSM_NAME"] == "$(POD_NAME)"


async def test_what_the_pod_has_stays_and_its_own_labels_win():
    mine = pod(URLS, labels={"a": "b", "spiffe.io/spiffe-id": "false"})
    mine["spec"] |= {"initContainers": [{"name": "mine"}], "volumes": [{"name": "mine", "emptyDir": {}}]}
    stored = await Cluster().store(mine)
    assert containers(stored["spec"], "initContainers") == ["mine", "nsc-init"]
    assert containers(stored["spec"], "volumes") == ["mine", "spire-agent-socket", "nsm-socket"]
    assert stored["metadata"]["labels"] == {"a": "b", "spiffe.io/spiffe-id": "false"}


async def test_a_volume_that_the_pod_has_under_the_name_is_shared():
    """An endpoint may be a client too."""
    socket = {"name": "nsm-socket", "hostPath": {"path": "/var/lib/networkservicemesh"}}
    mine = pod(URLS)
    mine["spec"]["volumes"] = [socket]
    assert (await Cluster().store(mine))["spec"]["volumes"][0] == socket
    assert containers((await Cluster().store(mine))["spec"], "volumes") == ["nsm-socket", "spire-agent-socket"]


@pytest.mark.parametrize("native", [True, False])
async def test_a_volume_that_a_template_has_under_the_name_stays_its_own_when_the_annotation_changes(native):
    """As it may say where the client finds a socket on its nodes."""
    mine = workload("Deployment", URLS)
    own = [{"name": "spire-agent-socket", "hostPath": {"path": "/run/other"}}, {"name": "nsm-ready", "emptyDir": {}}]
    template_of(mine)["spec"]["volumes"] = own
    cluster = Cluster(native=native)
    stored = await cluster.store(mine)
    stored["metadata"]["annotations"][KEY] = "kernel://other"
    stored = await cluster.store(stored, "UPDATE")
    assert template_of(stored)["spec"]["volumes"][:2] == own
    assert containers(template_of(stored)["spec"], "volumes") == ["spire-agent-socket", "nsm-ready", "nsm-socket"]
    del stored["metadata"]["annotations"]
    assert template_of(await cluster.store(stored, "UPDATE"))["spec"]["volumes"] == own


@pytest.mark.parametrize("level", ["baseline", "privileged"])
async def test_volumes_go_by_what_the_namespace_enforces_when_the_annotation_changes(level):
    before, after = (
        Cluster(namespaces={"default": {"labels": {ENFORCE: each}}}, identity_driver=driver)
        for each, driver in (("baseline" if level == "privileged" else "privileged", "a"), (level, "b"))
    )
    stored = await before.store(workload("Deployment", URLS))
    stored["metadata"]["annotations"][KEY] = "kernel://other"
    volumes = template_of(await after.store(stored, "UPDATE"))["spec"]["volumes"]
    assert volumes == template_of(await after.store(workload("Deployment", URLS)))["spec"]["volumes"]


async def test_a_configured_variable_takes_the_place_of_an_injected_one():
    cluster = Cluster(variables=(("SPIFFE_ENDPOINT_SOCKET", "unix:///other"), ("A", "x=y=z")))
    client = (await cluster.store(pod(URLS)))["spec"]["containers"][1]
    assert [each["name"] for each in client["env"]].count("SPIFFE_ENDPOINT_SOCKET") == 1
    assert variables(client)["SPIFFE_ENDPOINT_SOCKET"] == "unix:///other"
    assert variables(client)["A"] == "x=y=z"


async def test_a_native_sidecar_is_first_and_lets_the_next_one_start_when_its_wires_are_up():
    mine = pod(URLS)
    mine["spec"]["initContainers"] = [{"name": "mine"}]
    spec = (await Cluster(native=True).store(mine))["spec"]
    assert containers(spec) == ["app"]
    assert containers(spec, "initContainers") == ["nsc", "mine"]
    client = spec["initContainers"][0]
    assert client["restartPolicy"] == "Always"
    file = variables(client)["NSM_READY_FILE"]
    assert client["startupProbe"]["exec"]["command"][3] == file
    assert "readinessProbe" not in client
    folder = next(mount for mount in client["volumeMounts"] if file.startswith(mount["mountPath"]))
    assert not folder.get("readOnly")
    assert variables(client)["NSM_STATE_FOLDER"].startswith(f"{folder['mountPath']}/")
    assert {"name": folder["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} in spec["volumes"]


def probed(probe, file):
    """What a probe says of a client whose ready file is `file`; the exit code, and what the pod's event shows."""
    command = [file if "/" in word and word.endswith("-has-wires") else word for word in probe["exec"]["command"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=probe["timeoutSeconds"], check=False)
    return done.returncode, done.stdout + done.stderr


async def test_a_probe_that_fails_prints_what_the_client_waits_for(tmp_path):
    """Not that a file is not there: the line is what `kubectl describe pod` shows."""
    client = (await Cluster(native=True, readiness_probe=True).store(pod(URLS)))["spec"]["initContainers"][0]
    file = tmp_path / "nsc-has-wires"
    why = "no wire to 'web': nsmgr: network service 'web' is not found (discover_forwarder)\n"
    assert probed(client["readinessProbe"], str(file)) == (1, "the client has not reported anything yet; see its log\n")
    (tmp_path / "nsc-has-wires.why").write_text(why)
    assert probed(client["readinessProbe"], str(file)) == (1, why)
    assert probed(client["startupProbe"], str(file)) == (1, why)
    file.touch()
    for probe in (client["readinessProbe"], client["startupProbe"]):
        assert probed(probe, str(file)) == (0, "")


@pytest.mark.parametrize("native", [True, False])
async def test_a_pod_may_be_ready_only_while_its_clients_have_their_wires(native):
    spec = (await Cluster(native=native, readiness_probe=True).store(pod(URLS)))["spec"]
    (client,) = [each for key in ("initContainers", "containers") for each in spec[key] if each["name"] == "nsc"]
    assert client["readinessProbe"]["exec"]["command"][3] == variables(client)["NSM_READY_FILE"]
    assert ("startupProbe" in client) == native
    assert "nsm-ready" in containers(spec, "volumes")


async def test_where_images_cannot_tell_that_they_are_ready_the_init_image_waits_before_the_native_sidecar():
    spec = (await Cluster(native=True, tells_ready=False).store(pod(URLS)))["spec"]
    assert containers(spec, "initContainers") == ["nsc-init", "nsc"]
    init, client = spec["initContainers"]
    assert "restartPolicy" not in init
    assert client["restartPolicy"] == "Always"
    assert "startupProbe" not in client
    assert containers(spec, "volumes") == ["spire-agent-socket", "nsm-socket"]


SRIOV = "vfio://a?sriovToken=d.io/10G,vfio://b?sriovToken=d.io/10G"


@pytest.mark.parametrize(
    ("how", "key"),
    [({}, "initContainers"), ({"init_images": ()}, "containers"), ({"native": True}, "initContainers")],
)
async def test_devices_are_added_to_the_limits_of_the_one_that_asks_first(how, key):
    client = (await Cluster(**how).store(pod(SRIOV)))["spec"][key][-1]
    assert client["resources"]["limits"] == {"cpu": "200m", "memory": "80Mi", "d.io/10G": "2"}
    assert client["resources"]["requests"] == {"cpu": "100m", "memory": "40Mi"}


async def test_devices_are_not_asked_for_twice():
    stored = await Cluster().store(pod(SRIOV))
    assert "d.io/10G" not in stored["spec"]["containers"][1]["resources"]["limits"]


ENFORCE = "pod-security.kubernetes.io/enforce"


@pytest.mark.parametrize(("level", "strict"), [("baseline", False), ("restricted", True), ("stricter-still", True)])
async def test_a_namespace_that_forbids_host_paths_gets_csi_volumes(level, strict):
    cluster = Cluster(namespaces={"default": {"labels": {ENFORCE: level}}})
    spec = (await cluster.store(pod(URLS)))["spec"]
    assert spec["volumes"] == [
        {"name": "spire-agent-socket", "csi": {"driver": "csi.spiffe.io", "readOnly": True}},
        {"name": "nsm-socket", "csi": {"driver": "csi.networkservicemesh.io", "readOnly": True}},
    ]
    for client in (spec["containers"][1], spec["initContainers"][0]):
        if strict:
            assert client["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        else:
            assert "securityContext" not in client


@pytest.mark.parametrize("level", ["privileged", "restricted"])
async def test_clients_run_as_who_may_use_the_sockets_whoever_the_pods_own_containers_are(level):
    user = {"runAsUser": 65532, "runAsGroup": 65532}
    cluster = Cluster(namespaces={"default": {"labels": {ENFORCE: level}}}, user=user)
    mine = pod(URLS)
    mine["spec"]["securityContext"] = {"runAsUser": 1000}
    stored = await cluster.store(mine)
    for client in (stored["spec"]["containers"][1], stored["spec"]["initContainers"][0]):
        assert client["securityContext"] == {
            **user,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    assert stored["spec"]["securityContext"] == {"runAsUser": 1000}


async def test_a_client_that_is_to_be_root_is_root_where_that_is_allowed():
    """To write resolv.conf, for example."""
    root = {"runAsUser": 0}
    (_, client) = (await Cluster(user=root).store(pod(URLS)))["spec"]["containers"]
    assert client["securityContext"] == root


async def test_a_privileged_namespace_is_like_one_that_says_nothing():
    cluster = Cluster(namespaces={"default": {"labels": {ENFORCE: "privileged"}}})
    assert "hostPath" in (await cluster.store(pod(URLS)))["spec"]["volumes"][0]


async def test_csi_drivers_bring_the_sockets_everywhere_where_the_nodes_folders_are_not_known():
    cluster = Cluster(csi_everywhere=True)
    spec = (await cluster.store(pod(URLS)))["spec"]
    assert [volume["csi"]["driver"] for volume in spec["volumes"]] == ["csi.spiffe.io", "csi.networkservicemesh.io"]
    assert "securityContext" not in spec["containers"][1]


WORKLOADS = ["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob"]


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_the_annotation_of_a_workload_goes_into_its_template(kind):
    stored = await Cluster().store(workload(kind, URLS))
    template = template_of(stored)
    assert containers(template["spec"]) == ["app", "nsc"]
    assert containers(template["spec"], "initContainers") == ["nsc-init"]
    assert template["metadata"]["labels"] == {"app": "web", "spiffe.io/spiffe-id": "true"}
    name = variables(template["spec"]["containers"][1])["NSM_NAME"]
    assert re.fullmatch(rf"\$\(POD_NAME\)-{UUID}", name)
    made = {**template, "kind": "Pod", "metadata": {**template["metadata"], "generateName": "web-"}}
    assert await Cluster().store(made) == made  # its pods have their clients


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_a_template_that_is_annotated_itself_is_left_to_its_pods_but_read(kind):
    annotated = workload(kind, annotations={KEY: URLS})
    assert await Cluster().store(annotated) == annotated
    bad = workload(kind, annotations={KEY: "kernl://a"})
    sentence = await Cluster().refusal(bad)
    assert sentence.startswith(
        f"annotation networkservicemesh.io of the pod template of {kind} default/web: 'kernl://a': mechanism kernl"
    )


async def test_other_annotations_of_a_template_do_not_matter():
    stored = await Cluster().store(workload("Deployment", URLS, annotations={"prometheus.io/scrape": "true"}))
    assert containers(template_of(stored)["spec"]) == ["app", "nsc"]
    assert template_of(stored)["metadata"]["annotations"]["prometheus.io/scrape"] == "true"


async def test_the_replica_set_of_a_deployment_is_left_alone():
    """Else the Deployment would make another one for ever."""
    mine = workload("ReplicaSet", URLS)
    mine["metadata"]["ownerReferences"] = [{"kind": "Deployment", "controller": True}]
    assert await Cluster().store(mine) == mine


async def test_the_same_workload_always_becomes_the_same():
    """Applied, replaced or deleted and made again: its pods are not replaced for nothing."""
    one = await Cluster().store(workload("Deployment", URLS))
    assert await Cluster().store(workload("Deployment", URLS)) == one
    other = workload("Deployment", URLS)
    other["metadata"]["name"] = "other"
    assert template_of(await Cluster().store(other)) != template_of(one)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["Pod", *WORKLOADS])
async def test_a_second_injection_changes_nothing(kind, native):
    """Reinvocation, `kubectl apply` of what was read back, a webhook beside this one."""
    cluster = Cluster(native=native)
    stored = await cluster.store(pod(URLS) if kind == "Pod" else workload(kind, URLS))
    assert patch_of(await cluster.admission.review(review(stored))) == []
    if kind not in {"Pod", "Job"}:
        assert patch_of(await cluster.admission.review(review(stored, "UPDATE"))) == []


async def test_clients_that_another_webhook_injected_for_the_same_are_left():
    mine = pod(URLS)
    client = {"name": "cmd-nsc", "env": [{"name": "NSM_NETWORK_SERVICES", "value": URLS}]}
    mine["spec"]["containers"].append(client)
    assert await Cluster().store(mine) == mine


async def test_an_update_that_lost_the_clients_gets_them_back():
    """`kubectl replace` and the like bring a template without them."""
    cluster = Cluster()
    first = await cluster.store(workload("Deployment", URLS))
    assert await cluster.store(workload("Deployment", URLS), "UPDATE") == first
    half = copy.deepcopy(first)
    half["spec"]["template"]["spec"]["containers"].pop()
    assert await cluster.store(half, "UPDATE") == first


async def test_an_update_of_the_annotation_replaces_the_clients_and_keeps_their_name():
    cluster = Cluster()
    first = await cluster.store(workload("Deployment", URLS))
    first["metadata"]["annotations"][KEY] = "kernel://other/nsm-9"
    second = await cluster.store(first, "UPDATE")
    before, after = (template_of(each)["spec"]["containers"] for each in (first, second))
    assert containers(template_of(second)["spec"]) == ["app", "nsc"]
    assert variables(after[1])["NSM_NETWORK_SERVICES"] == "kernel://other/nsm-9"
    assert variables(after[1])["NSM_NAME"] == variables(before[1])["NSM_NAME"]
    assert containers(template_of(second)["spec"], "volumes") == ["spire-agent-socket", "nsm-socket"]


async def test_an_update_with_other_images_configured_rolls_nothing_out():
    """New images come with the next change of the annotation, not when somebody scales a Deployment."""
    first = await Cluster().store(workload("Deployment", URLS))
    newer = Cluster(images=images("localhost/nsm/nsc:2"))
    assert await newer.store(first, "UPDATE") == first


async def test_clients_of_a_former_image_go_when_the_annotation_changes():
    first = await Cluster(images=images("localhost/nsm/old-nsc:1")).store(workload("Deployment", URLS))
    first["metadata"]["annotations"][KEY] = "kernel://other"
    assert containers(template_of(await Cluster().store(first, "UPDATE"))["spec"]) == ["app", "nsc"]


@pytest.mark.parametrize("native", [True, False])
async def test_an_annotation_that_is_removed_takes_the_clients_along(native):
    cluster = Cluster(native=native)
    plain = workload("Deployment")
    stored = await cluster.store(workload("Deployment", URLS))
    del stored["metadata"]["annotations"]
    after = await cluster.store(stored, "UPDATE")
    assert template_of(after)["spec"] == template_of(plain)["spec"]
    assert "annotations" not in template_of(after)["metadata"]


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
async def test_pods_are_looked_at_when_they_are_created_only(operation):
    assert await Cluster().store(pod(URLS), operation) == pod(URLS)


async def test_other_kinds_are_none_of_our_business():
    service = {"kind": "Service", "metadata": {"name": "a", "annotations": {KEY: URLS}}, "spec": {}}
    assert await Cluster().store(service) == service


async def test_a_pod_inherits_from_its_namespace():
    cluster = Cluster(namespaces={"default": {"annotations": {KEY: URLS}}})
    assert containers((await cluster.store(pod()))["spec"]) == ["app", "nsc"]
    own = (await cluster.store(pod("kernel://mine")))["spec"]["containers"][1]
    assert variables(own)["NSM_NETWORK_SERVICES"] == "kernel://mine"
    assert await cluster.store(pod("")) == pod("")  # it wants none
    assert await cluster.store(workload("Deployment")) == workload("Deployment")  # its pods inherit


async def test_an_empty_annotation_of_a_template_that_has_clients_leaves_its_pods_without():
    """As its workload's annotation put them there, before the template had one of its own."""
    cluster = Cluster()
    template = template_of(await cluster.store(workload("Deployment", URLS)))
    template["metadata"]["annotations"][KEY] = ""
    stored = await cluster.store({"kind": "Pod", **template})
    assert stored["spec"] == pod()["spec"]
    assert stored["metadata"]["annotations"] == {KEY: ""}


async def test_an_annotation_that_was_moved_into_the_template_and_removed_takes_the_clients_along():
    cluster = Cluster()
    stored = await cluster.store(workload("Deployment", URLS))
    template_of(stored)["metadata"]["annotations"] |= stored["metadata"].pop("annotations")
    stored = await cluster.store(stored, "UPDATE")
    del template_of(stored)["metadata"]["annotations"][KEY]
    stored = await cluster.store(stored, "UPDATE")
    assert template_of(stored)["spec"] == template_of(workload("Deployment"))["spec"]


async def test_a_namespace_that_was_annotated_just_now_is_asked_for():
    cluster = Cluster(namespaces={"default": {}}, now={"default": {"annotations": {KEY: URLS}}})
    assert containers((await cluster.store(pod()))["spec"]) == ["app", "nsc"]
    assert cluster.namespaces.asked == ["default"]


async def test_nobody_is_asked_about_the_namespace_of_a_workload_that_says_nothing():
    cluster = Cluster(namespaces={})
    assert await cluster.store(workload("Deployment")) == workload("Deployment")
    assert cluster.namespaces.asked == []


async def test_a_mirror_of_a_static_pod_is_left_alone():
    mirror = pod(annotations={"kubernetes.io/config.mirror": "x"})
    assert await Cluster(namespaces={"default": {"annotations": {KEY: URLS}}}).store(mirror) == mirror


async def test_a_pod_on_its_nodes_network_gets_no_wires():
    """They would be the node's."""
    mine = pod(URLS)
    mine["spec"]["hostNetwork"] = True
    assert "Pod default/web uses the network of its node (hostNetwork)" in await Cluster().refusal(mine)
    del mine["metadata"]["annotations"]
    answer = await Cluster(namespaces={"default": {"annotations": {KEY: URLS}}}).answer(mine)
    assert answer["allowed"]
    assert "patch" not in answer
    assert "gets no wires from its namespace" in answer["warnings"][0]
    owner = workload("DaemonSet", URLS)
    template_of(owner)["spec"]["hostNetwork"] = True
    assert "a Pod of DaemonSet default/web uses the network of its node" in await Cluster().refusal(owner)


async def test_a_pod_for_windows_gets_no_wires():
    """The API server would refuse it with a client; in an annotated namespace it is none the worse for that."""
    mine = pod(URLS)
    mine["spec"]["os"] = {"name": "windows"}
    assert await Cluster().refusal(mine) == "Pod default/web is for Windows (os), which clients do not support"
    del mine["metadata"]["annotations"]
    answer = await Cluster(namespaces={"default": {"annotations": {KEY: URLS}}}).answer(mine)
    assert answer["allowed"]
    assert "patch" not in answer
    assert (
        "is for Windows (os), which clients do not support; it gets no wires from its namespace"
        in answer["warnings"][0]
    )
    mine = pod(URLS)
    mine["spec"]["os"] = {"name": "linux"}
    assert containers((await Cluster().store(mine))["spec"]) == ["app", "nsc"]


async def test_a_template_whose_pods_would_all_be_refused_is_refused_itself():
    """Else a Deployment is accepted, and why it has no pods stands in the events of its ReplicaSet."""
    mine = workload("Deployment", annotations={KEY: URLS})
    template_of(mine)["spec"]["hostNetwork"] = True
    assert "a Pod of Deployment default/web uses the network of its node" in await Cluster().refusal(mine)
    template_of(mine)["metadata"]["annotations"][KEY] = ""
    assert await Cluster().store(mine) == mine
    mine = workload("Deployment", annotations={KEY: URLS})
    template_of(mine)["spec"]["containers"].append({"name": "nsc", "image": "mine"})
    assert "Deployment default/web: container 'nsc' has the name of a client" in await Cluster().refusal(mine)


async def test_a_refusal_says_whose_annotation_it_is_and_what_is_wrong():
    assert await Cluster().refusal(pod("kernel://a/nsm-1,kernel://b/nsm-1")) == (
        "annotation networkservicemesh.io of Pod default/web: interface 'nsm-1' is requested twice; "
        "each wire needs its own name"
    )
    made = pod("memif://", generateName="web-")
    del made["metadata"]["name"]
    assert (await Cluster().refusal(made)).startswith("annotation networkservicemesh.io of Pod default/web-*: 'memif:")
    assert (await Cluster().refusal(workload("CronJob", "x"))).startswith(
        "annotation networkservicemesh.io of CronJob default/web: 'x' names no service"
    )
    cluster = Cluster(namespaces={"default": {"annotations": {KEY: "x"}}})
    assert (await cluster.refusal(pod())).startswith("annotation networkservicemesh.io of Namespace default: 'x' names")


async def test_a_container_that_is_called_like_a_client_is_named():
    mine = pod(URLS)
    mine["spec"]["containers"].append({"name": "nsc", "image": "mine"})
    assert await Cluster().refusal(mine) == (
        "Pod default/web: container 'nsc' has the name of a client that would be injected; rename it"
    )


async def test_an_object_without_a_spec_is_left_to_the_api_server():
    broken = {"kind": "Pod", "metadata": {"name": "web", "annotations": {KEY: URLS}}}
    assert await Cluster().store(broken) == broken


@pytest.mark.parametrize("name", [[], {}, 7, None])
@pytest.mark.parametrize("place", ["containers", "initContainers", "volumes", "volumeMounts"])
async def test_names_that_are_none_are_left_to_the_api_server(place, name):
    stored = await Cluster().store(pod(URLS))
    stored["metadata"]["annotations"][KEY] = "kernel://other"
    if place == "volumeMounts":
        stored["spec"]["containers"][0][place] = [{"name": name}]
    else:
        stored["spec"][place].append({"name": name})
    again = await Cluster().store(stored)
    assert variables(again["spec"]["containers"][-1])["NSM_NETWORK_SERVICES"] == "kernel://other"


def namespace(annotation=None, labels=None):
    metadata = {"name": "shop", **({"labels": labels} if labels else {})}
    if annotation is not None:
        metadata["annotations"] = {KEY: annotation}
    return {"kind": "Namespace", "metadata": metadata}


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
async def test_a_label_says_that_a_namespace_is_annotated(operation):
    label = recipe().namespace_label
    assert label == "networkservicemesh.io/annotated"
    assert (await Cluster().store(namespace(URLS), operation))["metadata"]["labels"] == {label: "true"}
    stored = await Cluster().store(namespace(None, {label: "true", "a": "b"}), operation)
    assert stored["metadata"]["labels"] == {"a": "b"}
    assert await Cluster().store(namespace(), operation) == namespace()
    assert (await Cluster().refusal(namespace("kernl://a"), operation)).startswith(
        "annotation networkservicemesh.io of Namespace shop: 'kernl://a': mechanism kernl is unknown"
    )


@pytest.mark.parametrize(
    "item",
    [workload("Deployment", "kernl://a"), workload("Deployment", "kernel://a"), namespace("kernl://a")],
)
async def test_what_was_deleted_already_can_lose_its_finalizers(item):
    """The garbage collector removes them by updates; who refused those would keep the object for ever."""
    going = copy.deepcopy(item)
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    answer = await Cluster().answer(item, "UPDATE", before=going)
    assert answer["allowed"], answer
    assert "patch" not in answer


async def test_an_object_that_only_says_that_it_was_deleted_is_looked_at():
    """Such as one that was read from elsewhere: the API server passes over what it says of that."""
    mine = pod(URLS, deletionTimestamp="2026-01-01T00:00:00Z")
    assert containers((await Cluster().store(mine))["spec"]) == ["app", "nsc"]


async def test_a_namespace_that_goes_is_not_looked_at():
    assert await Cluster().store(namespace("kernl://a"), "DELETE") == namespace("kernl://a")


def test_an_annotation_with_a_slash_gives_names_without_a_second_one():
    mine = recipe(annotation="example.org/wires")
    assert (mine.marker, mine.namespace_label) == ("example.org/wires-injected", "example.org/wires-annotated")


@pytest.mark.parametrize(
    ("value", "names"),
    [("registry.example:443/a/b-c:v1@sha256:00,nsc", ["b-c", "nsc"]), ("localhost/nsm/nsc", ["nsc"]), ("", [])],
)
def test_containers_are_called_like_their_images(value, names):
    assert [image.container for image in images(value)] == names


@pytest.mark.parametrize("value", ["a/B:1", "a/", "x_y", "a/nsc:1,b/nsc:2"])
def test_images_that_give_no_name_are_refused(value):
    with pytest.raises(ValueError, match="does not end in a valid container name|several images are called 'nsc'"):
        images(value)


SERVICES = {
    "name": "nsm-services",
    "downwardAPI": {
        "defaultMode": 420,
        "items": [
            {
                "path": "services",
                "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{KEY}']"},
            }
        ],
    },
}


@pytest.mark.parametrize("native", [True, False])
async def test_clients_follow_the_annotation_of_their_pod_by_a_file_beside_upstream_s_variable(native):
    """All else is as without it; the volume is written in full, so that an update knows it for its own."""
    with_file = (await Cluster(native=native, follows=True).store(pod(URLS)))["spec"]
    without = (await Cluster(native=native).store(pod(URLS)))["spec"]
    clients = [each for each in _all(with_file) if each["name"] != "app"]
    assert len(clients) == (1 if native else 2)
    for client in clients:
        assert variables(client)["NSM_NETWORK_SERVICES"] == URLS
        assert variables(client)["NSM_NETWORK_SERVICES_FILE"] == "/run/nsm-services/services"
        mount = {"name": "nsm-services", "mountPath": "/run/nsm-services", "readOnly": True}
        assert client["volumeMounts"].count(mount) == 1
        client["volumeMounts"].remove(mount)
        client["env"] = [each for each in client["env"] if each["name"] != "NSM_NETWORK_SERVICES_FILE"]
    assert with_file["volumes"].count(SERVICES) == 1
    with_file["volumes"].remove(SERVICES)
    for client in [*_all(with_file), *_all(without)]:
        client["env"] = [each for each in client.get("env", []) if each["name"] != "NSM_NAME"]  # is made up
    assert with_file == without


def _all(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


async def test_what_follows_the_annotation_goes_with_the_client():
    cluster = Cluster(follows=True)
    stored = await cluster.store(workload("Deployment", URLS))
    assert SERVICES in template_of(stored)["spec"]["volumes"]
    stored["metadata"]["annotations"][KEY] = "kernel://other"
    stored = await cluster.store(stored, "UPDATE")
    assert template_of(stored)["spec"]["volumes"].count(SERVICES) == 1
    del stored["metadata"]["annotations"]
    stored = await cluster.store(stored, "UPDATE")
    assert "volumes" not in template_of(stored)["spec"]


@pytest.mark.parametrize("other", [{"tells_ready": False}, {"url_variable": "OTHER_URLS"}, {"follows": False}])
async def test_clients_that_do_not_know_the_file_get_none(other):
    spec = (await Cluster(**{"follows": True, **other}).store(pod(URLS)))["spec"]
    assert "nsm-services" not in str(spec)
