"""Names of wires are found in a pod whose client is not root: what the pod gets for that."""

import pytest

from tests.webhook.reviews import KEY, Cluster, pod, template_of, variables, workload

URLS = "kernel://web/nsm-1"
COPY = {"name": "nsm-ready", "mountPath": "/etc/resolv.conf", "subPath": "resolv.conf"}
FROM_DNS = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}
PINGS = {"name": "net.ipv4.ping_group_range", "value": "0 65535"}
LIKE_SHIPPED = {"names": True, "user": {"runAsUser": 65532, "runAsGroup": 65532}}


def mounts(spec):
    """Which containers see the copy."""
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    return [each["name"] for each in containers if COPY in each.get("volumeMounts", [])]


def two(**spec):
    mine = pod(URLS)
    mine["spec"]["initContainers"] = [{"name": "first"}]
    mine["spec"] |= spec
    return mine


async def test_containers_see_a_copy_of_resolv_conf_that_the_client_makes_before_they_start():
    spec = (await Cluster(native=True, **LIKE_SHIPPED).store(two()))["spec"]
    assert mounts(spec) == ["first", "app"]
    client = spec["initContainers"][0]
    assert client["name"] == "nsc"
    assert {"name": "nsm-ready", "mountPath": "/run/nsm"} in client["volumeMounts"]
    assert variables(client)["NSM_RESOLV_CONF_FROM"] == "/etc/resolv.conf"
    assert variables(client)["NSM_RESOLV_CONF_PATH"] == "/run/nsm/resolv.conf"
    assert spec["securityContext"]["sysctls"] == [FROM_DNS, PINGS]


async def test_before_native_sidecars_the_client_that_asks_first_makes_it_and_the_pod_s_own_before_it_see_the_kubelet_s():
    spec = (await Cluster(**LIKE_SHIPPED).store(two()))["spec"]
    assert mounts(spec) == ["app"]
    asks_first, keeps = spec["initContainers"][-1], spec["containers"][-1]
    for client in (asks_first, keeps):
        assert variables(client)["NSM_RESOLV_CONF_PATH"] == "/run/nsm/resolv.conf"
        assert {"name": "nsm-ready", "mountPath": "/run/nsm"} in client["volumeMounts"]


@pytest.mark.parametrize(
    "how",
    [
        {"native": True, "user": {"runAsUser": 0}},
        {"native": True, "names": False},
        {"native": True, "tells_ready": False},
        {"native": True, "variables": (("NSM_LOCAL_DNS_SERVER_ENABLED", "false"),)},
        {"init_images": ()},
    ],
)
async def test_a_pod_is_left_alone_whose_client_needs_no_help_or_cannot_use_it(how):
    stored = await Cluster(**{**LIKE_SHIPPED, **how}).store(two())
    assert mounts(stored["spec"]) == []
    assert "securityContext" not in stored["spec"]


async def test_what_a_pod_says_of_its_names_and_ports_stays():
    own = {"name": "mine", "mountPath": "/etc/resolv.conf"}
    sysctls = [{**FROM_DNS, "value": "80"}, {**PINGS, "value": "0 1"}]
    mine = two(securityContext={"runAsNonRoot": True, "sysctls": sysctls})
    mine["spec"]["containers"][0]["volumeMounts"] = [own]
    spec = (await Cluster(native=True, **LIKE_SHIPPED).store(mine))["spec"]
    assert spec["containers"][0]["volumeMounts"] == [own]
    assert spec["securityContext"] == mine["spec"]["securityContext"]


async def test_a_client_may_check_its_wires_by_pings_where_the_container_runtime_does_not_allow_them():
    mine = two(securityContext={"sysctls": [{**FROM_DNS, "value": "80"}]})
    spec = (await Cluster(native=True, **LIKE_SHIPPED).store(mine))["spec"]
    assert spec["securityContext"]["sysctls"] == [{**FROM_DNS, "value": "80"}, PINGS]


async def test_it_goes_with_the_client():
    cluster, mine = Cluster(native=True, **LIKE_SHIPPED), workload("Deployment", URLS)
    before = template_of(mine)["spec"]
    before["securityContext"] = {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 1"}]}
    stored = await cluster.store(mine)
    assert FROM_DNS in template_of(stored)["spec"]["securityContext"]["sysctls"]
    again = await cluster.store(stored, "UPDATE")
    assert again == stored
    del stored["metadata"]["annotations"][KEY]
    assert template_of(await cluster.store(stored, "UPDATE"))["spec"] == before
