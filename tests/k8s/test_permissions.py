"""What the system's service accounts may do in the cluster: this, and nothing else."""

import json

import pytest

from tests.k8s.system import MANIFESTS, NAMESPACE, eventually

pytestmark = pytest.mark.timeout(200)

OBJECTS = {"networkservices.networkservicemesh.io", "networkserviceendpoints.networkservicemesh.io"}
WEBHOOKS = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
ALLOWED = {
    "nsmgr": {},
    "forwarder-kernel": {},
    "csi-driver": {},
    "registry": {
        **{(kind, ""): {"list", "watch", "get", "create", "update", "delete"} for kind in OBJECTS},
        ("events", ""): {"create"},
    },
    "identity": {("pods", ""): {"list", "watch"}, ("secrets", "nsm-identity"): {"list", "watch", "update"}},
    "prefixes": {
        ("nodes", ""): {"list", "watch"},
        ("services", ""): {"list", "watch"},
        ("servicecidrs.networking.k8s.io", ""): {"list", "watch"},
        ("configmaps", "excluded-prefixes-config"): {"list", "watch"},
        ("configmaps", "excluded-prefixes"): {"list", "watch", "patch"},
    },
    "webhook": {
        ("namespaces", ""): {"get", "list", "watch", "patch"},
        (WEBHOOKS, ""): {"create"},
        (WEBHOOKS, "nsm-webhook"): {"get", "update", "delete"},
    },
}
"""For each account: kind and name (empty: all of the kind), and the verbs in the system's own namespace."""

EVERYBODY = {
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
}


@pytest.mark.parametrize("account", sorted(ALLOWED))
def test_a_service_account_may_do_what_the_table_says_and_nothing_else(kubectl, account):
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    table = kubectl.within(NAMESPACE)("auth", "can-i", "--list", "--no-headers", user)
    assert permissions(table) == ALLOWED[account]


WISHES = [
    ("get", "", "secrets"),
    ("create", "", "pods"),
    ("update", "", "nodes"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("impersonate", "", "users"),
]


def test_no_service_account_may_take_the_cluster_over(kubectl):
    """In no namespace."""
    asked = [(account, *wish) for account in sorted(ALLOWED) for wish in WISHES]
    reviews = {"apiVersion": "v1", "kind": "List", "items": [*map(review, asked)]}
    answers = kubectl("create", "-o", "jsonpath={.status.allowed} ", "-f", "-", stdin=json.dumps(reviews)).split()
    assert answers == ["false"] * len(asked), [who for who, told in zip(asked, answers, strict=True) if told != "false"]


def review(asked):
    account, verb, group, resource = asked
    spec = {
        "user": f"system:serviceaccount:{NAMESPACE}:{account}",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
        "resourceAttributes": {"verb": verb, "group": group, "resource": resource},
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


@pytest.mark.parametrize(
    ("workload", "binding", "said"),
    [
        (
            "deployment/prefixes",
            "clusterrolebinding/nsm-prefixes",
            "grant it the verb 'list' on servicecidrs.networking.k8s.io by a ClusterRole",
        ),
        (
            "deployment/prefixes",
            "rolebinding/prefixes",
            f"may not list configmaps in namespace '{NAMESPACE}': grant it the verb 'list' on configmaps by a Role",
        ),
        ("daemonset/identity", "clusterrolebinding/nsm-identity", "grant it the verb 'list' on pods by a ClusterRole"),
        (
            "daemonset/identity",
            "rolebinding/identity",
            f"may not list secrets in namespace '{NAMESPACE}': grant it the verb 'list' on secrets by a Role",
        ),
    ],
)
def test_a_permission_that_is_missing_is_told_and_granting_it_is_enough(kubectl, workload, binding, said):
    mine, (kind, name) = kubectl.within(NAMESPACE), binding.split("/")
    mine("delete", kind, name)
    try:
        mine("rollout", "restart", workload)
        assert eventually(lambda: said in logs(mine, workload)), logs(mine, workload)
    finally:
        kubectl("apply", "-k", MANIFESTS)
    mine.rolled_out(workload)


def logs(mine, workload):
    """What all pods of a workload have written."""
    app = workload.partition("/")[2]
    return mine.run("logs", "--selector", f"app={app}", "--all-containers", "--tail=-1").stdout


def permissions(table):
    """kind and name -> verbs, out of the table that kubectl prints, less what everybody may."""
    found = {}
    for line in table.splitlines():
        kind, rest = line.split(" ", 1)
        names, verbs = (part.strip("[]").split() for part in rest.split("[", 2)[2].split("]", 1))
        verbs = set(" ".join(verbs).strip("[] ").split())
        if not kind.strip() or kind in EVERYBODY or "[" in kind:
            continue
        for name in names or [""]:
            found.setdefault((kind, name), set()).update(verbs)
    return found
