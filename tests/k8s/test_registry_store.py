"""Registries in the custom resources of a real API server: two processes with no more permissions than they need."""

import asyncio
import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import ENDPOINTS, SERVICES, MeshError, RegistryCall, Unavailable
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Pool, RemoteRegistry
from nsm.kube import CONFIG_MAPS, EVENTS, Gone, Reflector, Rejected, Unauthorized, connect
from nsm.services.registry.custom_resources.objects import ENDPOINT_FORM, SERVICE_FORM
from tests.cluster import api_server, binary, identities
from tests.cluster.programs import Programs, answers
from tests.docs.pages import ROOT
from tests.services.registry import nonsense

pytestmark = pytest.mark.timeout(240)  # an API server of our own, on a machine that may be busy
NAMESPACE = "nsm-system"
OPTIONS = [
    "--endpoint-reconciler-type=none",  # the loopback cannot be an endpoint
    "--watch-cache-sizes=configmaps#0",  # those are watched in etcd,
    "--etcd-compaction-interval=2s",  # which forgets what is older than that
]
LIFETIME = 6
MANIFESTS = ROOT / "k8s"
ACCOUNTS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: registry, namespace: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: nobody, namespace: {NAMESPACE}}}
"""
LOOSE_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.networkservicemesh.io}}
spec:
  group: networkservicemesh.io
  scope: Namespaced
  names: {{kind: {kind}, listKind: {kind}List, plural: {plural}, singular: {singular}, shortNames: {short}}}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {{x-kubernetes-preserve-unknown-fields: true}}
"""
OTHER_DEFINITIONS = "---".join(
    LOOSE_DEFINITION.format(kind=kind, plural=f"{kind.lower()}s", singular=kind.lower(), short=short)
    for kind, short in (("NetworkService", "[netsvc, netsvcs]"), ("NetworkServiceEndpoint", "[nse, nses]"))
)
"""Such as let anything through, as a registry of another make brings them."""
FORMS = [
    pytest.param(SERVICE_FORM, nonsense.SERVICE, id="service"),
    pytest.param(ENDPOINT_FORM, nonsense.ENDPOINT, id="endpoint"),
]


class Cluster:
    """An API server that a test may stop and start."""

    def __init__(self, folder, programs):
        self._programs = programs
        who = identities.make(folder / "identities", ["127.0.0.1", api_server.FIRST_SERVICE])
        ports = api_server.free_ports(3)
        self.api = api_server.start(programs, folder, who, binary.programs(), ports=ports, more=OPTIONS)
        self._words = programs._running["kube-apiserver"].args
        self.kubectl("apply", "-k", MANIFESTS / "crds")
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self.kubectl_apply(ACCOUNTS)
        self.kubectl("apply", "-f", MANIFESTS / "registry-k8s" / "rbac.yaml")

    def kubectl(self, *words, check=True, **options):
        command = [self.api.kubectl, "--kubeconfig", self.api.kubeconfig, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
        return done

    def kubectl_apply(self, text, **options):
        return self.kubectl("apply", "-f", "-", input=text, **options)

    def kubeconfig(self, account, folder):
        """A file by which a service account is reached, as a pod of it would be."""
        token = self.kubectl("create", "token", account, "-n", NAMESPACE).stdout.strip()
        return self.kubeconfig_with(token, folder, account)

    def kubeconfig_with(self, token, folder, name):
        ca = base64.b64encode(self.api.identities.file("ca.crt").read_bytes()).decode()
        text = {
            "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": self.api.url, "certificate-authority-data": ca}}],
            "users": [{"name": "x", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": NAMESPACE}}],
        }
        path = folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(text))
        return path

    @property
    def server(self):
        return self._programs._running["kube-apiserver"]

    def stop(self):
        self.server.kill()
        self.server.wait()

    def start(self):
        """Start it again; by the main thread, since programs end with the thread that started them."""
        self._programs.start("kube-apiserver", self._words[3:], env={})

    def until_ready(self):
        tls = ssl.create_default_context(cafile=self.api.identities.file("ca.crt"))
        token = self.api.identities.tokens[identities.ADMIN]
        self._programs.wait_until(lambda: answers(f"{self.api.url}/readyz", tls, token), "the API server is back")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with Programs(folder / "logs") as programs:
        yield Cluster(folder, programs)


@pytest.fixture(autouse=True)
def empty(cluster):
    """Each test begins with nothing registered."""
    yield
    if cluster.server.poll() is not None:
        cluster.start()
        cluster.until_ready()
    cluster.kubectl("delete", "nse,netsvc", "--all", "-A", "--wait=true")


class Registries:
    """Processes `nsm registry`, and a client with an identity."""

    def __init__(self, stack, folder, kubeconfig):
        self._stack, self._folder, self._kubeconfig = stack, folder, kubeconfig
        self.sockets = [folder / "client", folder / "other", *(folder / f"registry-{n}" for n in range(2))]
        entries = ",".join(f"socket:{socket}=spiffe://test.mesh/{socket.name}" for socket in self.sockets)
        self._start("identity", NSM_ENTRIES=entries)
        wait_until(lambda: all(socket.exists() for socket in self.sockets))
        self.processes = [self.start(number) for number in range(2)]
        self.urls = [f"unix://{folder}/listen-{number}" for number in range(2)]

    def start(self, number):
        process = self._start(
            "registry",
            NSM_NAME=f"registry-{number}",
            NSM_LISTEN_ON=f"unix://{self._folder}/listen-{number}",
            NSM_STORE=f"k8s:{NAMESPACE}",
            NSM_ENDPOINT_LIFETIME=f"{LIFETIME}s",
            NSM_REGISTRATION_HOSTS="10.0.0.0/8",
            KUBECONFIG=str(self._kubeconfig),
            SPIFFE_ENDPOINT_SOCKET=f"unix://{self._folder}/registry-{number}",
        )
        wait_until(lambda: '"ready"' in self.said(f"registry-{number}") or process.poll() is not None)
        assert process.poll() is None, self.said(f"registry-{number}")
        return process

    def said(self, name):
        return (self._folder / f"{name}.log").read_text()

    def _start(self, component, **environment):
        name = environment.get("NSM_NAME", component)
        log = self._stack.enter_context((self._folder / f"{name}.log").open("w"))
        words = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "nsm.chains", component]
        clean = {"PATH": os.environ["PATH"], **environment}
        process = self._stack.enter_context(subprocess.Popen(words, env=clean, stderr=log, stdout=log))
        self._stack.callback(process.kill)
        return process

    @asynccontextmanager
    async def clients(self, who="client"):
        """Endpoints and services, each at both registries."""
        async with (
            identity_from(f"unix://{self._folder}/{who}", token_lifetime=600.0) as identity,
            Pool(identity) as pool,
        ):
            yield Client(ENDPOINTS, pool, self.urls), Client(SERVICES, pool, self.urls)
        await asyncio.sleep(0.2)  # TLS says good-bye to the registries before their sockets are closed


class Client:
    def __init__(self, kind, pool, urls):
        self._remote, self._urls = RemoteRegistry(kind, pool), urls

    async def register(self, at, record, timeout=10.0):
        deadline = asyncio.get_running_loop().time() + timeout
        return await self._remote.register(RegistryCall(record, target=self._urls[at], deadline=deadline))

    async def unregister(self, at, record):
        await self._remote.unregister(RegistryCall(record, target=self._urls[at]))

    async def find(self, at, query):
        call = RegistryCall(query, target=self._urls[at])
        return [found.record async for batch in self._remote.find(call) for found in batch]

    def watch(self, at, query):
        return self._remote.find(RegistryCall(query, watch=True, target=self._urls[at]))

    async def found(self, at, query, condition, seconds=5.0):
        """Wait until what is found fits; returns how long that took."""
        begin = time.monotonic()
        while not condition(there := await self.find(at, query)):
            assert time.monotonic() - begin < seconds, [record.name for record in there]
            await asyncio.sleep(0.005)
        return time.monotonic() - begin


@pytest.fixture
def registries(cluster, tmp_path):
    with ExitStack() as stack:
        yield Registries(stack, tmp_path, cluster.kubeconfig("registry", tmp_path))


def wait_until(condition, seconds=20.0):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)


def nse(name="nse-1", *services, **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), **fields)


ANY = NetworkServiceEndpoint()
SERVICE = {"apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService"}


async def test_what_one_replica_is_told_the_other_finds(registries, cluster):
    async with registries.clients() as (endpoints, _):
        watch = endpoints.watch(1, nse("", "svc"))
        first = asyncio.ensure_future(anext(watch))
        await endpoints.register(0, nse(url="tcp://10.0.0.1:5001"))
        (found,) = await first
        assert (found.record.name, found.record.url, found.deleted) == ("nse-1", "tcp://10.0.0.1:5001", False)
        assert [record.name for record in await endpoints.find(0, ANY)] == ["nse-1"]
        await endpoints.register(1, nse(url="tcp://10.0.0.1:5001"))
        await endpoints.unregister(1, nse())
        while not any(found.deleted for found in await anext(watch)):  # several changes may come together
            pass
        await watch.aclose()
        await endpoints.found(0, ANY, lambda found: not found)
    assert cluster.kubectl("get", "nse", "-A").stdout == ""


async def test_replicas_that_write_one_name_at_once_agree(registries, cluster):
    async with registries.clients() as (endpoints, _):
        await asyncio.gather(*(endpoints.register(n % 2, nse(url=f"tcp://10.0.0.{n}:1")) for n in range(20)))
        written = json.loads(cluster.kubectl("get", "nse", "nse-1", "-n", NAMESPACE, "-o", "json").stdout)
        for at in range(2):
            await endpoints.found(at, ANY, lambda found: [each.url for each in found] == [written["spec"]["url"]])


async def test_an_endpoint_that_does_not_come_again_is_collected_by_one_of_them(registries, cluster):
    async with registries.clients() as (endpoints, _):
        await endpoints.register(0, nse("stays"))
        await endpoints.register(0, nse("goes"))
        for _ in range(LIFETIME):
            await asyncio.sleep(1)
            await endpoints.register(1, nse("stays"))
        assert [record.name for record in await endpoints.find(0, ANY)] == ["stays"]
        await asyncio.sleep(2.5)
        assert cluster.kubectl("get", "nse", "-A", "-o", "name").stdout.split() == [
            "networkserviceendpoint.networkservicemesh.io/stays"
        ]
    for number in range(2):
        assert "cannot delete" not in registries.said(f"registry-{number}")


async def test_a_name_of_one_identity_is_not_taken_by_another(registries):
    async with registries.clients() as (endpoints, _), registries.clients("other") as (others, _):
        await endpoints.register(0, nse())
        with pytest.raises(MeshError, match=r"'nse-1' was registered by spiffe://test.mesh/client"):
            await others.register(1, nse())


async def test_an_edited_service_is_seen_by_the_next_request_in_less_than_a_second(registries, cluster):
    async with registries.clients() as (_, services):
        await services.register(0, NetworkService(name="svc"))
        patch = {"spec": {"matches": [{"routes": [{"destination_selector": {"version": "2"}}]}]}}
        cluster.kubectl("patch", "netsvc", "svc", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch))
        for at in range(2):
            took = await services.found(at, NetworkService(name="svc"), lambda found: bool(found[0].matches))
            assert took < 1
        await services.register(1, NetworkService(name="svc"))
        (service,) = await services.find(0, NetworkService(name="svc"))
        assert service.matches[0].routes[0].destination_selector == {"version": "2"}


async def test_a_service_that_a_person_applied_stays_what_it_is(registries, cluster):
    cluster.kubectl_apply(
        f"""
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {{name: by-hand, namespace: {NAMESPACE}}}
spec: {{payload: IP, matches: [{{source_selector: {{app: a}}, routes: [{{destination_selector: {{app: b}}, weight: 2}}]}}]}}
"""
    )
    async with registries.clients() as (_, services):
        await services.found(0, NetworkService(name="by-hand"), bool)
        await services.register(0, NetworkService(name="by-hand"))
        with pytest.raises(MeshError, match="'by-hand' was applied by hand with payload IP and 1 matches"):
            await services.register(0, NetworkService(name="by-hand", payload="ETHERNET"))
        await services.unregister(0, NetworkService(name="by-hand"))
    assert cluster.kubectl("get", "netsvc", "by-hand", "-n", NAMESPACE).returncode == 0


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("NetworkService", {"payload": "FRAMES"}, 'Unsupported value: "FRAMES"'),
        ("NetworkService", {"matches": "all"}, "must be of type array"),
        ("NetworkService", {"matches": [{"routes": [{"weight": -1}]}]}, "should be greater than or equal to 0"),
        ("NetworkServiceEndpoint", {"url": "nowhere"}, "should match"),
        ("NetworkServiceEndpoint", {"network_service_names": [1]}, "must be of type string"),
        ("NetworkServiceEndpoint", {"expiration_time": {"seconds": "soon"}}, "must be of type integer"),
        ("NetworkServiceEndpoint", None, "spec: Required value"),
    ],
)
def test_nonsense_is_refused_by_the_schema(cluster, kind, spec, said):
    text = {"apiVersion": "networkservicemesh.io/v1", "kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE}}
    if spec is not None:
        text["spec"] = spec
    done = cluster.kubectl_apply(json.dumps(text), check=False)
    assert done.returncode != 0
    assert said in done.stderr


def fault_in(form, made):
    try:
        form.from_object(made)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("form", "sound"), FORMS)
async def test_what_the_schema_lets_through_is_a_record_or_has_an_unknown_field(cluster, form, sound):
    """Every place of an object with every kind of value: refused there, or a record here, or reported by its field."""
    refused, taken = 0, 0
    async with connect(str(cluster.api.kubeconfig)) as api:
        for path, spec, new in nonsense.all_of(sound):
            try:
                made = await api.create(form.resource, {"metadata": {"name": "x"}, "spec": spec}, NAMESPACE)
            except Rejected:
                refused += 1
            else:
                await api.delete(form.resource, "x", NAMESPACE)
                if fault := fault_in(form, made):
                    assert "is not a field of" in fault, (path, new)
                else:
                    assert form.from_object(made).name == "x" or path == ("name",), (path, new)
                taken += 1
    assert refused >= sum(nonsense.must_fail(sound, path, new) for path, _, new in nonsense.all_of(sound))
    assert taken > 20


async def test_fields_of_a_newer_registry_are_kept(registries, cluster):
    async with registries.clients() as (endpoints, _):
        await endpoints.register(0, nse())
        patch = json.dumps({"spec": {"newer": {"field": [1]}}})
        cluster.kubectl("patch", "nse", "nse-1", "-n", NAMESPACE, "--type=merge", "-p", patch)
        await endpoints.register(1, nse(url="tcp://10.0.0.9:1"))
    written = json.loads(cluster.kubectl("get", "nse", "nse-1", "-n", NAMESPACE, "-o", "json").stdout)["spec"]
    assert (written["newer"], written["url"]) == ({"field": [1]}, "tcp://10.0.0.9:1")


async def test_a_misspelt_selector_is_kept_by_the_api_server_and_leaves_the_service_out_with_an_event(
    registries, cluster
):
    """At every depth: had the API server taken it out, all clients would pass by the firewall."""
    route = {"destinationSelector": {"app": "firewall"}}
    spec = {"payload": "IP", "matches": [{"source_selectors": {}, "routes": [route], "metadata": {"lables": {}}}]}
    metadata = {"name": "web", "namespace": NAMESPACE}
    applied = {"apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService", "metadata": metadata, "spec": spec}
    async with registries.clients() as (_, services):
        cluster.kubectl_apply(json.dumps(applied))
        try:
            stored = json.loads(cluster.kubectl("get", "netsvc", "web", "-n", NAMESPACE, "-o", "json").stdout)["spec"]
            assert stored == spec
            told = "matches[0].source_selectors is not a field of a match; expected source_selector"
            wait_until(lambda: told in cluster.kubectl("get", "events", "-n", NAMESPACE).stdout)
            for at in range(2):
                assert await services.find(at, NetworkService(name="web")) == []
                with pytest.raises(MeshError, match="'web' of that name cannot be read, and is not overwritten"):
                    await services.register(at, NetworkService(name="web"))
        finally:
            cluster.kubectl("delete", "netsvc", "web", "-n", NAMESPACE)


@contextmanager
def strict_fields(cluster):
    """With the policy in force, which takes a moment; afterwards without it."""

    def refusal(spec):
        """What the API server says to it; nothing is stored."""
        metadata = {"name": "x", "namespace": NAMESPACE}
        made = {"apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService", "metadata": metadata, "spec": spec}
        return cluster.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(made), check=False).stderr

    cluster.kubectl("apply", "-k", MANIFESTS / "strict-fields")
    try:
        wait_until(lambda: "the spec has a field" in refusal({"matchs": []}))
        yield refusal
    finally:
        cluster.kubectl("delete", "-k", MANIFESTS / "strict-fields")
        wait_until(lambda: not refusal({"matchs": []}))


def test_with_strict_fields_a_misspelt_selector_is_rejected_when_it_is_applied(cluster):
    """And what upstream's registry writes is not."""
    with strict_fields(cluster) as refusal:
        for match, told in (
            ({"routes": [{"destinationSelector": {"app": "firewall"}}]}, "a route has a field that is not one of"),
            ({"source_selectors": {}}, "a match has a field that is not one of"),
            ({"metadata": {"lables": {}}}, "the metadata of a match has a field that is not labels"),
        ):
            assert told in refusal({"payload": "IP", "matches": [match]})
        for spec in ({}, nonsense.SERVICE):
            assert refusal(spec) == ""


async def test_behind_another_definition_nonsense_is_ignored_with_an_event(registries, cluster):
    async with registries.clients() as (_, services):
        await services.register(0, NetworkService(name="svc"))
        cluster.kubectl_apply(OTHER_DEFINITIONS)
        try:
            patch = json.dumps({"spec": {"matches": "all of them"}})
            wait_until(
                lambda: (
                    cluster.kubectl(
                        "patch", "netsvc", "svc", "-n", NAMESPACE, "--type=merge", "-p", patch, check=False
                    ).returncode
                    == 0
                )
            )
            wait_until(
                lambda: (
                    "matches is 'all of them'; expected a list"
                    in cluster.kubectl("get", "events", "-n", NAMESPACE).stdout
                )
            )
            told = cluster.kubectl("describe", "netsvc", "svc", "-n", NAMESPACE).stdout
            assert "Malformed" in told
            assert told.count("expected a list") == 1  # of two replicas
            for at in range(2):
                assert len(await services.find(at, NetworkService(name="svc"))) == 1
        finally:
            cluster.kubectl("delete", "netsvc", "svc", "-n", NAMESPACE)
            cluster.kubectl("apply", "-k", MANIFESTS / "crds")


async def definitions_are_loose(cluster, api):
    """Definitions count some moments after they were applied."""
    cluster.kubectl_apply(OTHER_DEFINITIONS)
    async with asyncio.timeout(20):
        for form in (SERVICE_FORM, ENDPOINT_FORM):
            while not await taken(api, form, "probe", {"name": 1}):
                await asyncio.sleep(0.1)
            await api.delete(form.resource, "probe", NAMESPACE)


async def taken(api, form, name, spec):
    try:
        await api.create(form.resource, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
    except Rejected:
        return False
    return True


async def test_beside_hundreds_of_objects_that_make_no_sense_both_registries_go_on(registries, cluster):
    """Each with another thing wrong in it; also for a registry that starts then."""
    spoilt = set()
    async with registries.clients() as (endpoints, services), connect(str(cluster.api.kubeconfig)) as api:
        await endpoints.register(0, nse("before"))
        await definitions_are_loose(cluster, api)
        try:
            for form, sound in ((SERVICE_FORM, nonsense.SERVICE), (ENDPOINT_FORM, nonsense.ENDPOINT)):
                for number, (path, spec, new) in enumerate(nonsense.all_of(sound)):
                    # while the definitions change, what is null may be taken out on its way to us
                    if number % 5 == 0 and new is not None and nonsense.must_fail(sound, path, new):
                        assert await taken(api, form, f"bad-{number}", spec)
                        spoilt.add((form.resource.kind, f"bad-{number}"))
            registries.processes[1].kill()
            registries.processes[1].wait()
            registries.processes[1] = registries.start(1)
            for at in range(2):
                await endpoints.register(at, nse("before"))
                await endpoints.register(at, nse(f"late-{at}"))
                await services.register(at, NetworkService(name=f"late-{at}"))
            for at in range(2):
                await endpoints.found(at, ANY, lambda found: len(found) == 3)
                await services.found(at, NetworkService(), lambda found: len(found) == 2)
            async with asyncio.timeout(20):
                while spoilt - (told := await complained_of(api)):
                    await asyncio.sleep(0.1)
            assert told == spoilt
        finally:
            for form in (SERVICE_FORM, ENDPOINT_FORM):  # one request: kubectl alone would take half a minute
                cluster.kubectl("delete", "--raw", f"/{form.resource.path(NAMESPACE).strip('/')}")
            cluster.kubectl("apply", "-k", MANIFESTS / "crds")


@pytest.fixture
def ours_at_the_end(cluster):
    yield
    cluster.kubectl("apply", "-k", MANIFESTS / "crds")


async def test_definitions_applied_over_those_of_another_registry_and_back_lose_nothing(
    registries, cluster, ours_at_the_end
):
    """The records of both go on whichever definitions come last; those of the other have no expiration time."""
    theirs = {
        "nse-theirs": {
            "name": "nse-theirs",
            "network_service_names": ["svc"],
            "network_service_labels": {"svc": {"labels": {"nodeName": "node-1"}}},
            "url": "tcp://10.0.0.1:5001",
            "initial_registration_time": {"seconds": 1_700_000_000, "nanos": 43_812_717},
            "path_ids": ["spiffe://test.mesh/client", "spiffe://test.mesh/theirs"],
        },
        "svc-theirs": {
            "name": "svc-theirs",
            "payload": "ETHERNET",
            "matches": [
                {
                    "source_selector": {"app": "a"},
                    "routes": [{"destination_selector": {"nodeName": "{{ .nodeName }}"}, "weight": 3}],
                    "fallthrough": True,
                },
                {"metadata": {"labels": {"any": "way"}}},
            ],
            "path_ids": ["spiffe://test.mesh/client", "spiffe://test.mesh/theirs"],
        },
    }
    loose, ours = ("-f", "-"), ("-k", MANIFESTS / "crds")
    async with registries.clients() as (endpoints, services), connect(str(cluster.api.kubeconfig)) as api:
        await definitions_are_loose(cluster, api)
        for form, name in ((ENDPOINT_FORM, "nse-theirs"), (SERVICE_FORM, "svc-theirs")):
            await api.create(form.resource, {"metadata": {"name": name}, "spec": theirs[name]}, NAMESPACE)
        for definitions in (ours, loose, ours):
            await services.register(0, NetworkService(name="svc"))
            await endpoints.register(0, nse("nse-ours", url="tcp://10.0.0.2:5001"))
            before = await all_objects(api)
            assert len(before) == 4
            cluster.kubectl("apply", *definitions, input=OTHER_DEFINITIONS if definitions == loose else None)
            assert await all_objects(api) == before
            for at in range(2):
                await endpoints.found(at, ANY, lambda found: len(found) == 2)
                (record,) = await endpoints.find(at, nse("nse-theirs"))
                assert (record.url, record.expiration_time) == ("tcp://10.0.0.1:5001", None)
                assert record.network_service_labels["svc"].labels == {"nodeName": "node-1"}
                (service,) = await services.find(at, NetworkService(name="svc-theirs"))
                assert (service.payload, len(service.matches)) == ("ETHERNET", 2)
                assert service.matches[0].routes[0].weight == 3
                assert service.matches[1].metadata.labels == {"any": "way"}
        renewed = await endpoints.register(1, nse("nse-theirs", url="tcp://10.0.0.1:5001"))
        assert (renewed.initial_registration_time.seconds, renewed.expiration_time is None) == (1_700_000_000, False)
        await endpoints.unregister(0, nse("nse-theirs"))
        await endpoints.found(1, nse("nse-theirs"), lambda found: not found)


async def all_objects(api):
    listings = [await api.list(form.resource) for form in (SERVICE_FORM, ENDPOINT_FORM)]
    return [found for listing in listings for found in listing.objects]


async def complained_of(api):
    """Kind and name of each object that an event calls nonsense."""
    events = (await api.list(EVENTS, NAMESPACE)).objects
    about = [event["involvedObject"] for event in events if event["reason"] == "Malformed"]
    return {(each["kind"], each["name"]) for each in about if each["name"].startswith("bad-")}


@pytest.mark.parametrize("depth", [500, 9000])
async def test_an_object_that_is_nested_beyond_reason_hides_no_other(registries, cluster, depth):
    """Unknown fields are let through by any definition, however deep they are nested."""
    text = json.dumps(
        {**SERVICE, "metadata": {"name": "deep", "namespace": NAMESPACE}, "spec": {"payload": "IP", "x": 0}}
    )
    deep = text.replace('"x": 0', f'"x": {"[" * depth}{"]" * depth}')
    path = f"/apis/networkservicemesh.io/v1/namespaces/{NAMESPACE}/networkservices"
    async with registries.clients() as (_, services):
        cluster.kubectl("create", "--raw", path, "-f", "-", input=deep)
        registries.processes[1].kill()
        registries.processes[1].wait()
        registries.processes[1] = registries.start(1)
        for at in range(2):
            await services.register(at, NetworkService(name=f"late-{at}"))
        for at in range(2):
            await services.found(at, NetworkService(), lambda found: len(found) == 2)
            with pytest.raises(
                MeshError, match=r"'deep' of that name cannot be read, .* spec.x is not a field of the spec"
            ):
                await services.register(at, NetworkService(name="deep"))


async def test_what_was_deleted_and_is_kept_by_a_finalizer_is_not_found_and_says_what_it_waits_for(registries, cluster):
    def finalizers(those):
        patch = json.dumps({"metadata": {"finalizers": those}})
        cluster.kubectl("patch", "nse", "nse-1", "-n", NAMESPACE, "--type=merge", "-p", patch)

    async with registries.clients() as (endpoints, _):
        await endpoints.register(0, nse())
        finalizers(["registry.example/audit"])
        await endpoints.unregister(0, nse())
        for at in range(2):
            await endpoints.found(at, ANY, lambda found: not found, seconds=1.0)
            waits = "'nse-1' in 'nsm-system' is being deleted and waits for its finalizers: registry.example/audit"
            with pytest.raises(MeshError, match=waits):
                await endpoints.register(at, nse())
            await endpoints.unregister(at, nse())
        finalizers(None)
        await endpoints.register(1, nse())
        await endpoints.found(0, ANY, lambda found: len(found) == 1)


async def test_what_a_person_sees(registries, cluster):
    async with registries.clients() as (endpoints, services):
        await services.register(0, NetworkService(name="svc"))
        record = nse(url="tcp://10.0.0.1:5001")
        record.network_service_labels["svc"] = NetworkServiceLabels(labels={"nodeName": "node-1"})
        await endpoints.register(0, record)
    shown = cluster.kubectl("get", "nse", "-n", NAMESPACE).stdout.splitlines()
    assert shown[0].split() == ["NAME", "SERVICES", "NODE", "AGE"]
    assert shown[1].split()[:3] == ["nse-1", '["svc"]', "node-1"]
    wide = cluster.kubectl("get", "nses", "-n", NAMESPACE, "-o", "wide").stdout.splitlines()
    assert {"tcp://10.0.0.1:5001", "spiffe://test.mesh/client"} <= set(wide[1].split())
    assert cluster.kubectl("get", "netsvc", "-n", NAMESPACE).stdout.splitlines()[1].split()[:2] == ["svc", "IP"]
    both = cluster.kubectl("get", "nsm", "-n", NAMESPACE, "-o", "name").stdout.split()
    assert {name.partition(".")[0] for name in both} == {"networkservice", "networkserviceendpoint"}
    told = cluster.kubectl("explain", "netsvc.spec.matches.routes.weight").stdout
    assert "share of this route" in told


async def test_an_api_server_that_restarts_is_survived(registries, cluster):
    async with registries.clients() as (endpoints, _):
        await endpoints.register(0, nse())
        cluster.stop()
        with pytest.raises(Unavailable, match="the API server cannot be reached"):
            await endpoints.register(0, nse("new"))
        await asyncio.sleep(LIFETIME + 1)
        for at in range(2):
            assert [record.name for record in await endpoints.find(at, ANY)] == ["nse-1"]
        cluster.start()
        await asyncio.to_thread(cluster.until_ready)
        begin = time.monotonic()
        while not await endpoints.find(1, nse("new")):
            assert time.monotonic() - begin < 15
            await registered(endpoints, nse("new"))
        await endpoints.found(1, nse("nse-1"), lambda found: not found, seconds=LIFETIME * 2 + 5)


async def test_an_api_server_that_hangs_is_survived(registries, cluster):
    async with registries.clients() as (endpoints, _):
        await endpoints.register(0, nse())
        os.kill(cluster.server.pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(MeshError, match="within the caller's deadline|did not answer in time"):
                await endpoints.register(0, nse("new"), timeout=1.0)
            assert time.monotonic() - begin < 2
            assert [record.name for record in await endpoints.find(1, ANY)] == ["nse-1"]
        finally:
            os.kill(cluster.server.pid, signal.SIGCONT)
        await registered(endpoints, nse("new"))


async def registered(endpoints, record):
    async with asyncio.timeout(20):
        while True:
            try:
                return await endpoints.register(0, record)
            except Unavailable:
                await asyncio.sleep(0.2)


async def test_a_missing_permission_is_one_line_in_the_log(registries, cluster, tmp_path):
    async with connect(str(cluster.kubeconfig("nobody", tmp_path))) as api:
        async with Reflector(api, SERVICE_FORM.resource) as services:
            while services.trouble is None:
                await asyncio.sleep(0.01)
            assert str(services.trouble) == (
                f"system:serviceaccount:{NAMESPACE}:nobody may not list networkservices.networkservicemesh.io in all "
                "namespaces: grant it the verb 'list' on networkservices.networkservicemesh.io by a ClusterRole"
            )
        with pytest.raises(Unavailable, match=f"may not create configmaps in namespace '{NAMESPACE}': grant it"):
            await api.create(CONFIG_MAPS, {"metadata": {"name": "x"}}, NAMESPACE)


async def test_a_registry_has_no_permission_that_it_does_not_need(cluster):
    """Neither to change what is elsewhere, nor to read anything else."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:registry"
    for words in (["update", "netsvc", "-n", "default"], ["list", "secrets", "-n", NAMESPACE], ["get", "pods", "-A"]):
        assert cluster.kubectl("auth", "can-i", *words, who, check=False).stdout.strip() == "no"


async def test_a_token_that_is_none(cluster, tmp_path):
    async with connect(str(cluster.kubeconfig_with("no.such.token", tmp_path, "bad"))) as api:
        with pytest.raises(Unauthorized, match="rejects our token"):
            await api.list(CONFIG_MAPS, NAMESPACE)


async def test_a_version_that_is_long_gone_is_said_so(cluster):
    async with connect(str(cluster.api.kubeconfig)) as api, asyncio.timeout(20):
        with pytest.raises(Gone):
            while True:  # a server that has just started answers the first watches out of etcd, which forgets later
                async with api.watch(CONFIG_MAPS, version="1", seconds=1) as events:
                    async for _ in events:
                        pass


async def test_the_server_tells_its_version(cluster):
    async with connect(str(cluster.api.kubeconfig)) as api:
        assert (await api.version())["gitVersion"] == binary.version()
