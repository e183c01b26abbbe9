"""The configuration that replicas share, and the certificates in it."""

import asyncio
import base64
import copy
import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from nsm.chains.core import Conflict, InvalidRequest
from nsm.kube import NAMESPACES
from nsm.webhook.certificate import ServerCertificate
from nsm.webhook.configuration import ENTRIES, bundle_of, configuration
from nsm.webhook.registration import CONFIGURATIONS, Registration
from nsm.webhook.renewal import Renewal
from nsm.webhook.sources import Files, OwnAuthority
from tests.webhook.cluster import FakeApi
from tests.webhook.reviews import recipe
from tests.webhook.serving import HOST, made

KEY = CONFIGURATIONS.plural, "nsm"


def build(bundle):
    return configuration("nsm", "webhook", "nsm-system", recipe(), bundle=bundle)


def replica(api):
    return Registration(api, build, "nsm-system")


def trusted(api):
    """The authorities that each entry trusts."""
    entries = api.objects[KEY]["webhooks"]
    bundles = {base64.b64decode(entry["clientConfig"]["caBundle"]).decode() for entry in entries}
    assert len(bundles) == 1
    return bundles.pop()


async def test_replicas_add_their_authorities_and_the_last_one_removes_the_configuration():
    api, one, other = FakeApi(), made(), made()
    first, second = replica(api), replica(api)
    await first.publish(one.authority)
    await second.publish(other.authority)
    assert trusted(api) == one.authority + other.authority
    await first.withdraw()
    assert trusted(api) == other.authority
    await second.withdraw()
    assert api.objects == {}


async def test_nothing_is_written_when_the_configuration_says_so_already():
    api, mine = FakeApi(), made()
    await replica(api).publish(mine.authority)
    await replica(api).publish(mine.authority)
    assert api.writes == 1


@pytest.mark.parametrize("edit", ["rules", "failurePolicy", "gone", "bundle"])
async def test_what_somebody_edits_is_put_right(edit):
    api, mine = FakeApi(), made()
    registration = replica(api)
    await registration.publish(mine.authority)
    before, entry = copy.deepcopy(api.objects[KEY]["webhooks"]), api.objects[KEY]["webhooks"][0]
    if edit == "gone":
        del api.objects[KEY]
    elif edit == "bundle":
        entry["clientConfig"]["caBundle"] = base64.b64encode(b"nonsense").decode()
    else:
        entry[edit] = []
    await registration.publish(mine.authority)
    assert api.objects[KEY]["webhooks"] == before


async def test_what_others_wrote_about_the_configuration_stays():
    """Such as what kubectl remembers of what was applied."""
    api, mine = FakeApi(), made()
    notes = {"labels": {"theirs": "1"}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}
    await api.create(CONFIGURATIONS, {"metadata": {"name": "nsm", **notes}, "webhooks": []})
    await replica(api).publish(mine.authority)
    metadata = api.objects[KEY]["metadata"]
    assert metadata["annotations"] == notes["annotations"]
    assert metadata["labels"] == {"theirs": "1", **build("")["metadata"]["labels"]}
    assert trusted(api) == mine.authority


async def test_the_configuration_goes_with_the_namespace_of_the_webhook():
    """An uninstallation may take our permissions before us."""
    api = FakeApi()
    api._store(NAMESPACES, {"metadata": {"name": "nsm-system"}})
    await replica(api).publish(made().authority)
    (owner,) = api.objects[KEY]["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Namespace", "name": "nsm-system", "uid": "1"}


async def test_expired_authorities_of_replicas_that_were_killed_go():
    api, old, mine = FakeApi(), made(datetime.timedelta(seconds=-1)), made()
    await api.create(CONFIGURATIONS, build(old.authority))
    await replica(api).publish(mine.authority)
    assert trusted(api) == mine.authority


async def test_replicas_that_are_killed_again_and_again_do_not_fill_the_configuration(monkeypatch):
    """An API server stores no object of more than some 1.5 MB; then nobody could register any more."""
    monkeypatch.setattr("nsm.webhook.registration._MOST", 3)
    api, living = FakeApi(), made()
    survivor = replica(api)
    await survivor.publish(living.authority)
    killed = [made().authority for _ in range(6)]
    for authority in killed:
        await replica(api).publish(authority)
    assert trusted(api) == "".join(killed[2:])
    await survivor.publish(living.authority)  # it looks now and then
    assert trusted(api) == "".join([*killed[3:], living.authority])
    before = api.writes
    await survivor.publish(living.authority)
    assert api.writes == before


async def test_an_expired_authority_of_our_own_is_not_registered():
    api = FakeApi()
    with pytest.raises(InvalidRequest, match="have expired"):
        await replica(api).publish(made(datetime.timedelta(seconds=-1)).authority)
    assert api.objects == {}


@pytest.mark.parametrize("there", [True, False])
async def test_replicas_that_write_at_the_same_time_lose_nothing(there):
    api, one, other, third = FakeApi(), made(), made(), made()
    if there:
        await replica(api).publish(third.authority)

    async def come_first():
        await replica(api).publish(other.authority)

    api.beforehand = come_first
    await replica(api).publish(one.authority)
    assert set(x509.load_pem_x509_certificates(trusted(api).encode())) == {
        x509.load_pem_x509_certificate(each.authority.encode()) for each in (one, other, *([third] if there else []))
    }


async def test_a_configuration_that_never_stops_changing_is_an_error():
    api = FakeApi()

    async def change():
        api.beforehand = change
        api._store(CONFIGURATIONS, build(made().authority))

    api.beforehand = change
    with pytest.raises(Conflict, match="the configuration nsm is constantly changed"):
        await replica(api).publish(made().authority)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("nsm.webhook.renewal._LOOK", 0.01)
    monkeypatch.setattr("nsm.webhook.renewal._PERIOD", 0.02)
    monkeypatch.setattr("nsm.webhook.sources._KEPT", 0.05)


async def until(condition):
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.005)


class Watched(ServerCertificate):
    """Notes for each certificate whether the API server knew its authority when it was shown."""

    def __init__(self, api):
        super().__init__(HOST)
        self._api, self.known = api, []

    def show(self, chain):
        issuer = chain.leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        known = trusted(self._api) if KEY in self._api.objects else ""
        ids = [
            each.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
            for each in (x509.load_pem_x509_certificates(known.encode()) if known else [])
        ]
        self.known.append(issuer.value.key_identifier in ids)
        super().show(chain)


@pytest.mark.usefixtures("fast")
async def test_a_certificate_is_replaced_before_it_ends_and_known_before_it_is_shown(monkeypatch):
    """The first one is shown to nobody: the webhook is not ready before it is registered."""
    api = FakeApi()
    certificate = Watched(api)
    own = OwnAuthority(certificate, "webhook", "nsm-system", lifetime=3600)
    renewal = Renewal(own, replica(api))
    assert renewal.fault == "the webhook is not registered yet"
    running = asyncio.ensure_future(renewal.run())
    await until(lambda: not renewal.fault)
    clock = time.time
    monkeypatch.setattr("nsm.webhook.sources.time.time", lambda: clock() + 2300)
    await asyncio.sleep(0.05)
    assert certificate.known == [False]  # not due yet
    for turn in (1, 2):
        monkeypatch.setattr("nsm.webhook.sources.time.time", lambda turn=turn: clock() + 2401 * turn)
        await until(lambda turn=turn: len(certificate.known) == turn + 1)
        await until(lambda: len(x509.load_pem_x509_certificates(trusted(api).encode())) == 1)
    assert certificate.known == [False, True, True]
    running.cancel()
    await renewal.withdraw()
    assert api.objects == {}


@pytest.mark.usefixtures("fast")
async def test_an_api_server_that_is_down_is_waited_for():
    api, certificate = FakeApi(), ServerCertificate(HOST)
    api.down = True
    renewal = Renewal(OwnAuthority(certificate, "webhook", "nsm-system", 60), replica(api))
    with capture_logs() as logs:
        running = asyncio.ensure_future(renewal.run())
        await until(lambda: "cannot be reached" in renewal.fault)
        await asyncio.sleep(0.05)
        assert len([line for line in logs if line["event"] == "cannot register"]) == 1
        api.down = False
        await until(lambda: not renewal.fault)
        del api.objects[KEY]
        await until(lambda: KEY in api.objects)  # it is looked at now and then
    running.cancel()
    api.down = True
    await renewal.withdraw()  # and what cannot be told is no reason not to end


@pytest.mark.usefixtures("fast")
async def test_while_the_api_server_is_slow_the_webhook_stays_ready_since_it_is_trusted():
    """All replicas would be taken out of the Service at once, and be missing when the API server is back."""
    api, certificate = FakeApi(), ServerCertificate(HOST)
    renewal = Renewal(OwnAuthority(certificate, "webhook", "nsm-system", 3600), replica(api))
    running = asyncio.ensure_future(renewal.run())
    await until(lambda: not renewal.fault)
    api.down = True
    await until(lambda: "cannot be reached" in renewal.trouble)
    assert renewal.fault == ""
    assert renewal.is_registered is False
    running.cancel()


@pytest.mark.usefixtures("fast")
async def test_an_api_server_that_was_away_until_the_certificate_expired_is_told_of_a_new_one(monkeypatch):
    api = FakeApi()
    certificate = Watched(api)
    renewal = Renewal(OwnAuthority(certificate, "webhook", "nsm-system", 3600), replica(api))
    running = asyncio.ensure_future(renewal.run())
    await until(lambda: not renewal.fault)
    api.down = True
    await until(lambda: renewal.trouble)
    expired, clock = trusted(api), time.time
    monkeypatch.setattr("nsm.webhook.sources.time.time", lambda: clock() + 3601)
    monkeypatch.setattr("nsm.webhook.registration._certificates", lambda pem: unexpired(pem, besides=expired))
    await asyncio.sleep(0.05)
    api.down = False
    await until(lambda: not renewal.trouble)
    await until(lambda: len(certificate.known) == 2)
    assert certificate.known[-1]
    running.cancel()


def unexpired(pem, besides):
    """The certificates of a bundle, but for one."""
    found = x509.load_pem_x509_certificates(pem.encode()) if pem.strip() else []
    return [text for each in found if (text := each.public_bytes(Encoding.PEM).decode()) != besides]


@pytest.mark.usefixtures("fast")
async def test_files_are_registered_by_their_bundle_and_shown_when_that_is_known(tmp_path):
    one, other, api = made(), made(), FakeApi()
    paths = write(tmp_path, one)
    certificate = Watched(api)
    renewal = Renewal(Files(certificate, *paths), replica(api))
    running = asyncio.ensure_future(renewal.run())
    await until(lambda: not renewal.fault)
    write(tmp_path, other)
    await until(lambda: trusted(api) == other.authority)
    assert certificate.known == [False, True]
    running.cancel()


@pytest.mark.usefixtures("fast")
async def test_a_replica_that_sees_new_files_later_is_trusted_until_then(tmp_path, monkeypatch):
    """On another node, where the kubelet brings what a Secret holds a minute later."""
    monkeypatch.setattr("nsm.webhook.sources._KEPT", 300.0)
    monkeypatch.setattr("nsm.webhook.renewal._PERIOD", 30.0)
    one, other, api, folders = made(), made(), FakeApi(), (tmp_path / "here", tmp_path / "there")
    certificates = [Watched(api), Watched(api)]
    renewals = [
        Renewal(Files(certificate, *write(folder, one)), replica(api))
        for certificate, folder in zip(certificates, folders, strict=True)
    ]
    running = [asyncio.ensure_future(renewal.run()) for renewal in renewals]
    await until(lambda: not any(renewal.fault for renewal in renewals))
    write(folders[0], other)
    await until(lambda: certificates[0].known == [False, True])
    await asyncio.sleep(0.05)
    assert one.authority in trusted(api)  # the other one shows what that issued
    for each in running:
        each.cancel()


@pytest.mark.usefixtures("fast")
async def test_half_of_a_bundle_is_waited_for(tmp_path):
    one, other, api = made(), made(), FakeApi()
    paths = write(tmp_path, one)
    renewal = Renewal(Files(ServerCertificate(HOST), *paths), replica(api))
    running = asyncio.ensure_future(renewal.run())
    await until(lambda: not renewal.fault)
    with capture_logs() as logs:
        (tmp_path / "ca.crt").write_text(other.authority[:200])
        await until(lambda: logs)
        await asyncio.sleep(0.05)
    assert [line["error"] for line in logs] == ["a certificate in it is invalid"]
    assert not renewal.fault
    assert trusted(api) == one.authority
    (tmp_path / "ca.crt").write_text(other.authority)
    await until(lambda: trusted(api) == other.authority)
    running.cancel()


def write(folder, source):
    """The files of a certificate, its key and its authority."""
    folder.mkdir(exist_ok=True)
    at, paths = source.pem.index(b"-----BEGIN PRIVATE KEY"), []
    for name, content in (("tls.crt", source.pem[:at]), ("tls.key", source.pem[at:]), ("ca.crt", source.authority)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(str(folder / name))
    return paths


@pytest.mark.parametrize(
    ("text", "said"),
    [("nothing", "there is no certificate in it"), (made().authority[:200], "a certificate in it is invalid")],
)
def test_a_bundle_that_holds_none_is_one_line(tmp_path, text, said):
    paths = write(tmp_path, made())
    (tmp_path / "ca.crt").write_text(text)
    with pytest.raises(InvalidRequest, match=rf"ca\.crt: {said}"):
        Files(ServerCertificate(HOST), *paths)


def test_a_server_that_knows_no_conditions_must_not_wait_for_a_webhook_that_is_down():
    old = configuration("nsm", "webhook", "nsm-system", recipe(), has_conditions=False)
    assert {entry["failurePolicy"] for entry in old["webhooks"]} == {"Ignore"}
    assert not any("matchConditions" in entry for entry in old["webhooks"])
    new = configuration("nsm", "webhook", "nsm-system", recipe())
    assert [entry["failurePolicy"] for entry in new["webhooks"]] == ["Fail", "Fail", "Ignore", "Ignore"]
    assert all(entry["matchConditions"] for entry in new["webhooks"])


@pytest.mark.parametrize("way", ["", "spec.template.", "spec.jobTemplate.spec.template."])
def test_an_update_that_removes_an_annotation_is_asked_about_wherever_that_was(way):
    """So that the clients go with it: also if it was moved from a workload, whose template got them, into the template."""
    (asks, *_) = configuration("nsm", "webhook", "nsm-system", recipe())["webhooks"][0]["matchConditions"]
    now, before = asks["expression"].split(" || (oldObject != null && (")
    assert f"'networkservicemesh.io' in object.{way}metadata.annotations" in now
    assert f"'networkservicemesh.io' in oldObject.{way}metadata.annotations" in before


def test_the_replica_set_of_a_deployment_does_not_wait():
    """It has the Deployment's annotations, and is left alone; a Deployment can be scaled while the webhook is away."""
    workloads, *_ = configuration("nsm", "webhook", "nsm-system", recipe())["webhooks"]
    (free,) = [each["expression"] for each in workloads["matchConditions"] if each["name"] == "is-nobodys"]
    assert free.startswith("!(")
    assert "object.metadata.ownerReferences.exists(owner, owner.kind == 'Deployment' &&" in free


def test_updates_of_what_was_deleted_already_do_not_wait():
    """The garbage collector's, which removes finalizers: a webhook that is away keeps nothing in the cluster."""
    workloads, _, namespaces, _ = configuration("nsm", "webhook", "nsm-system", recipe())["webhooks"]
    for entry in (workloads, namespaces):
        (stays,) = [each["expression"] for each in entry["matchConditions"] if each["name"] == "stays"]
        assert stays.startswith("oldObject == null || !")
        assert "has(oldObject.metadata.deletionTimestamp)" in stays


def test_the_namespaces_of_the_cluster_and_our_own_never_wait():
    for entry in configuration("nsm", "webhook", "mine", recipe())["webhooks"]:
        (others, *_) = entry["namespaceSelector"]["matchExpressions"]
        assert others["values"] == ["kube-system", "kube-public", "kube-node-lease", "mine"]
    assert len(ENTRIES) == 4


def test_who_misspelt_the_annotation_is_asked_about_and_waits_for_nobody():
    """So that they hear of it: but not what is annotated rightly, nor what was made out of a template."""
    *_, entry = configuration("nsm", "webhook", "nsm-system", recipe())["webhooks"]
    assert entry["failurePolicy"] == "Ignore"
    conditions = {each["name"]: each["expression"] for each in entry["matchConditions"]}
    assert conditions["has-no-owner"] == "!(has(object.metadata) && has(object.metadata.ownerReferences))"
    for way in ("", "spec.template.", "spec.jobTemplate.spec.template."):
        there = f"object.{way}metadata.annotations"
        assert (
            f"&& has({there}) && {there}.exists(key, key != 'networkservicemesh.io' && key != "
            in conditions["is-like-it"]
        )
    old = configuration("nsm", "webhook", "nsm-system", recipe(), has_conditions=False)
    assert len(old["webhooks"]) == 3


def test_a_configuration_without_entries_has_no_authorities():
    assert bundle_of({"webhooks": None}) == ""
