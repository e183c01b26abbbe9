"""How the API server is found, and how we prove who we are."""

import pytest

from nsm.kube import CONFIG_MAPS, NoCluster, ObjectMissing, Unauthorized, connect

from .stand_in import stand_in


@pytest.fixture(autouse=True)
def outside(monkeypatch, tmp_path):
    """Neither in a pod nor in a home with a kubeconfig."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
async def server():
    async with stand_in() as server:
        yield server


def kubeconfig(tmp_path, server, user):
    path = tmp_path / "config"
    path.write_text(f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: one, cluster: {{server: "{server.url}"}}}}]
users: [{{name: me, user: {user}}}]
contexts: [{{name: here, context: {{cluster: one, user: me, namespace: mine}}}}]
""")
    return str(path)


async def ask(api):
    with pytest.raises(ObjectMissing):
        await api.get(CONFIG_MAPS, "a", "x")


async def test_a_kubeconfig_by_the_variable(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, server, "{token: secret}"))
    async with connect() as api:
        await ask(api)
        assert (api.namespace, api.server) == ("mine", server.url)
    assert server.tokens == ["Bearer secret"]


async def test_a_kubeconfig_by_its_path(server, tmp_path):
    async with connect(kubeconfig(tmp_path, server, "{}")) as api:
        await ask(api)
    assert server.tokens == [""]


async def test_a_url(server):
    async with connect(server.url) as api:
        await ask(api)
        assert api.namespace == "default"


async def test_a_token_that_was_rotated_is_read_again(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    ended = set()
    server.refuse = lambda request: (
        {"code": 401, "message": "Unauthorized"} if request.headers["Authorization"] in ended else None
    )
    async with connect(kubeconfig(tmp_path, server, f'{{tokenFile: "{token}"}}')) as api:
        await ask(api)
        token.write_text("new\n")
        ended.add("Bearer old")
        await ask(api)
    assert server.tokens == ["Bearer old", "Bearer old", "Bearer new"]


PLUGIN = "client.authentication.k8s.io/v1beta1"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (f"{{exec: {{apiVersion: {PLUGIN}, command: /nowhere}}}}", "No such file"),
        (f"{{exec: {{apiVersion: {PLUGIN}, command: echo, args: [hello]}}}}", "JSONDecodeError"),
        (f'{{exec: {{apiVersion: {PLUGIN}, command: echo, args: ["{{}}"]}}}}', "status"),
        (f"{{exec: {{apiVersion: {PLUGIN}, command: 'false'}}}}", "returned 1"),
        ("{tokenFile: /}", "Is a directory"),
        ("{tokenFile: /nowhere}", "not found"),
    ],
)
async def test_what_should_give_a_token_and_does_not(server, tmp_path, user, said):
    async with connect(kubeconfig(tmp_path, server, user)) as api:
        with pytest.raises(Unauthorized, match=f"cannot get configmaps 'a' in namespace 'x': no token: .*{said}"):
            await api.get(CONFIG_MAPS, "a", "x")


@pytest.mark.parametrize("url", ["http://host:port", "http://[::1"])
async def test_a_url_that_is_none(url):
    with pytest.raises(NoCluster, match="Invalid port"):
        async with connect(url):
            pass


async def test_nothing_says_where():
    with pytest.raises(NoCluster, match="cannot find the API server: not in a pod, KUBECONFIG is not set and"):
        async with connect():
            pass


async def test_a_pod_without_a_service_account(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(NoCluster, match="serviceaccount/token"):
        async with connect():
            pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is incomplete"),
        ("[1, 2]", "is incomplete"),
        ("clusters: []\ncontexts: []\nusers: []\n", "has no current context|No current context"),
        ("current-context: x\nclusters: []\ncontexts: []\n", "Context 'x' not found"),
        ("{", "expected"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(tmp_path, content, said):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(NoCluster, match=said):
        async with connect(str(path)):
            pass


async def test_a_kubeconfig_that_is_not_there():
    with pytest.raises(NoCluster, match="/nowhere not found"):
        async with connect("/nowhere"):
            pass
