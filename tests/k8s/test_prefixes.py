"""What a real cluster uses itself is in the ConfigMap that managers read."""

from tests.k8s.system import NAMESPACE, eventually


def test_the_range_of_the_services_is_excluded(system, excluded):
    (service_cidr,) = system.kubectl.get("servicecidrs")["items"]
    assert set(service_cidr["spec"]["cidrs"]) <= set(excluded())


def test_what_a_user_adds_is_excluded_and_what_somebody_does_to_the_result_is_undone(system, excluded):
    kubectl, before = system.kubectl.within(NAMESPACE), excluded()
    entry = "excluded_prefixes_input.yaml=prefixes: [192.0.2.0/25, 192.0.2.128/25]"
    kubectl("create", "configmap", "excluded-prefixes-config", f"--from-literal={entry}")
    try:
        assert eventually(lambda: "192.0.2.0/24" in excluded())
        edit = '{"data": {"excluded_prefixes.yaml": "prefixes: []"}}'
        kubectl("patch", "configmap", "excluded-prefixes", "--type=merge", "-p", edit)
        assert eventually(lambda: "192.0.2.0/24" in excluded())
    finally:
        kubectl("delete", "configmap", "excluded-prefixes-config")
    assert eventually(lambda: excluded() == before)
