"""Records as objects and back; names that Kubernetes allows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm.apis import codec
from nsm.apis.registry import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
)
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import DEFAULT_LIMITS
from nsm.chains.registry.memory import Records
from nsm.chains.registry.stored import EndpointLives, Entry, ServiceLives, is_live
from nsm.chains.registry.stored.index import Index
from nsm.kube import Change
from nsm.services.registry.custom_resources.backend import CustomResources
from nsm.services.registry.custom_resources.names import object_name
from nsm.services.registry.custom_resources.objects import ENDPOINT_FORM, SERVICE_FORM
from nsm.services.registry.custom_resources.place import Place
from tests.services.registry import nonsense
from tests.services.registry.nonsense import ENDPOINT, SERVICE

text = st.text(max_size=8)
labels = st.dictionaries(text, text, max_size=3)
times = st.none() | st.builds(
    Timestamp, seconds=st.integers(-62_135_596_800, 253_402_300_799), nanos=st.integers(0, 999_999_999)
)
routes = st.builds(Destination, destination_selector=labels, weight=st.integers(0, 2**32 - 1))
matches = st.builds(
    Match,
    source_selector=labels,
    routes=st.lists(routes, max_size=2),
    fallthrough=st.booleans(),
    metadata=st.none() | st.builds(Metadata, labels=labels),
)
services = st.builds(
    NetworkService,
    name=st.text(min_size=1, max_size=20),
    payload=st.sampled_from(["", "IP", "ETHERNET"]),
    matches=st.lists(matches, max_size=3),
    path_ids=st.lists(text, max_size=3),
)
endpoints = st.builds(
    NetworkServiceEndpoint,
    name=st.text(min_size=1, max_size=20),
    network_service_names=st.lists(text, max_size=3),
    network_service_labels=st.dictionaries(text, st.builds(NetworkServiceLabels, labels=labels), max_size=2),
    url=text,
    expiration_time=times,
    initial_registration_time=times,
    path_ids=st.lists(text, max_size=3),
)


@given(services)
def test_a_service_comes_back_as_it_went(service):
    assert SERVICE_FORM.from_object(SERVICE_FORM.to_object(service, "x")) == service


@given(endpoints)
def test_an_endpoint_comes_back_as_it_went(endpoint):
    assert ENDPOINT_FORM.from_object(ENDPOINT_FORM.to_object(endpoint, "x")) == endpoint


FORMS = [pytest.param(SERVICE_FORM, SERVICE, id="service"), pytest.param(ENDPOINT_FORM, ENDPOINT, id="endpoint")]
beginnings = [*SERVICE_FORM.fields, *ENDPOINT_FORM.fields, "spec"]


def usable(record):
    """What whoever finds a record does with it: none of this may fail."""
    assert type(record)().parse(codec.encode(record)) == record
    if isinstance(record, NetworkServiceEndpoint):
        for moment in (record.expiration_time, record.initial_registration_time):
            assert moment is None or moment.to_rfc3339().endswith("Z")
        is_live(EndpointLives(60.0).ends(Entry("x", 1, record)))
    records = Records()
    records.put(record)
    assert records.matching(type(record)(name=record.name)) == [record]


def fault(form, spec):
    """What is said to be wrong with it; nothing if it is a record, which then is usable."""
    try:
        record = form.from_object({"metadata": {"name": "x"}, "spec": spec})
    except ValueError as error:
        return str(error)
    usable(record)
    return ""


@pytest.mark.parametrize(("form", "sound"), FORMS)
def test_each_field_edited_into_nonsense_is_named_and_what_passes_is_usable(form, sound):
    """Every place of an object with every kind of value."""
    assert fault(form, sound) == ""
    for path, spec, new in nonsense.all_of(sound):
        said = fault(form, spec)
        assert said or not nonsense.must_fail(sound, path, new), (path, new)
        if said:
            place = nonsense.shown(path) if path or not isinstance(new, dict) else ""
            assert re.match(rf"{re.escape(place)}.* is .*; expected ", said), said


ROUTE = "matches[0].routes[0]."


@pytest.mark.parametrize(
    ("path", "key", "told"),
    [
        (
            ("matches", 0, "routes", 0),
            "destinationSelector",
            f"{ROUTE}destinationSelector is the spelling from before NSM 1.0; expected destination_selector",
        ),
        (
            ("matches", 0),
            "sourceSelector",
            "matches[0].sourceSelector is the spelling from before NSM 1.0; expected source_selector",
        ),
        (("matches", 0), "route", "matches[0].route is the spelling from before NSM 1.0; expected routes"),
        (
            ("matches", 0, "routes", 0),
            "destination_selectors",
            f"{ROUTE}destination_selectors is not a field of a route; expected destination_selector",
        ),
        (("matches", 0, "routes", 0), "wieght", f"{ROUTE}wieght is not a field of a route; expected weight"),
        (
            ("matches", 0, "routes", 0),
            "colour",
            f"{ROUTE}colour is not a field of a route; expected destination_selector or weight",
        ),
        (("matches", 0), "fall_through", "matches[0].fall_through is not a field of a match; expected fallthrough"),
        (
            ("matches", 0, "metadata"),
            "lables",
            "matches[0].metadata.lables is not a field of metadata; expected labels",
        ),
        ((), "macthes", "spec.macthes is not a field of the spec; expected matches"),
        ((), "newer", "spec.newer is not a field of the spec; expected matches, name, path_ids or payload"),
    ],
)
def test_a_misspelt_key_of_a_service_is_told_by_its_path_with_the_right_one(path, key, told):
    """Dropped, it would let clients pass by the firewall that they should go through. Null or not is no difference."""
    for value in (None, {"app": "firewall"}):
        assert fault(SERVICE_FORM, nonsense.put(SERVICE, (*path, key), value)) == told


@pytest.mark.parametrize(
    ("path", "key", "told"),
    [
        (
            (),
            "networkServiceNames",
            "spec.networkServiceNames is the spelling from before NSM 1.0; expected network_serv",
        ),
        ((), "labels", "spec.labels is not a field of the spec; expected"),
        (
            (),
            "network_service_label",
            "spec.network_service_label is not a field of the spec; expected network_service_",
        ),
        (
            ("network_service_labels", "svc"),
            "label",
            "network_service_labels.svc.label is not a field of a service's labels; expected labels",
        ),
        (("expiration_time",), "second", "expiration_time.second is not a field of a time; expected seconds"),
    ],
)
def test_a_misspelt_key_of_an_endpoint_is_told_by_its_path(path, key, told):
    assert fault(ENDPOINT_FORM, nonsense.put(ENDPOINT, (*path, key), 1)).startswith(told)


def test_an_endpoint_of_a_later_version_may_have_more_fields_that_stay():
    later = {**ENDPOINT, "newer": {"field": [1]}}
    assert fault(ENDPOINT_FORM, later) == ""
    held = {"metadata": {"name": "x"}, "spec": {**later, "urls": []}}
    written = ENDPOINT_FORM.to_object(ENDPOINT_FORM.from_object({**held, "spec": later}), "ns", held)
    assert written["spec"] == later


@pytest.mark.parametrize("form", [SERVICE_FORM, ENDPOINT_FORM])
def test_what_stands_beside_the_spec_by_mistake_is_told(form):
    with pytest.raises(
        ValueError, match=r"^matches is not a field of the object; expected apiVersion, kind, metadata, sp"
    ):
        form.from_object({"metadata": {"name": "x"}, "spec": {}, "matches": []})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*beginnings, "seconds", "nanos", "labels", "routes", "weight"]) | text, inner
        )
    ),
    max_leaves=12,
)


@given(anything)
def test_nonsense_is_told_by_the_field_and_does_nothing_else(spec):
    for form in (SERVICE_FORM, ENDPOINT_FORM):
        said = fault(form, spec)
        assert not said or re.split(r"[. \[]", said, maxsplit=1)[0] in beginnings


@given(st.data(), anything)
@pytest.mark.parametrize(("form", "sound"), FORMS)
def test_nonsense_in_one_place_of_a_sound_object_is_told_by_that_place(form, sound, data, new):
    path = data.draw(st.sampled_from([path for path in nonsense.places(sound) if path]))
    said = fault(form, nonsense.put(sound, path, new))
    assert not said or said.startswith(nonsense.shown(path))


@pytest.mark.parametrize("depth", [50, 800, 100_000])
def test_nonsense_that_is_nested_deep_or_long_is_shown_in_short(depth):
    deep = []
    for _ in range(depth):
        deep = [deep]
    for value in (deep, {"a": deep}, ["x" * depth], ["x"] * depth):
        with pytest.raises(ValueError, match=r"^payload is .*; expected text$") as caught:
            SERVICE_FORM.from_object({"metadata": {"name": "x"}, "spec": {"payload": value}})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("form", "sound"), FORMS)
async def test_an_index_goes_on_after_any_nonsense(form, sound):
    complaints = []
    backend = CustomResources(Place(None, "x", component="registry"), form)
    backend._complain = lambda about, fault: complaints.append((about["metadata"]["resourceVersion"], fault))
    lives = EndpointLives(60.0) if form is ENDPOINT_FORM else ServiceLives(0.0, lambda name: False)
    index = Index(backend, lives, limits=DEFAULT_LIMITS, is_cut_off=lambda: False, over=lambda ended: None)
    backend.observe(index.observe)
    expected, held = 0, None
    for number, (path, spec, new) in enumerate(nonsense.all_of(sound)):
        metadata = {"name": "x", "namespace": "x", "resourceVersion": str(number + 1)}
        backend._changed(Change(held, held := {"metadata": metadata, "spec": spec}))
        expected += nonsense.must_fail(sound, path, new)
    assert len({version for version, _ in complaints}) == len(complaints) >= expected
    metadata = {"name": "x", "namespace": "x", "resourceVersion": str(number + 2)}
    backend._changed(Change(held, held := {"metadata": metadata, "spec": sound}))
    assert [record.name for record in index.records.matching(type(index.records.get("x"))())] == ["x"]
    assert len(index) == 1
    backend._changed(Change(held, None))
    assert len(index) == len(index.records) == 0
    index.close()


@pytest.mark.parametrize("name", ["nse-1", "a", "icmp-responder.my-vpp", "0"])
def test_a_name_that_kubernetes_allows_is_the_objects(name):
    assert object_name(name) == name


@given(st.text(min_size=1, max_size=400))
def test_any_name_makes_a_valid_one_always_the_same(name):
    made = object_name(name)
    assert made == object_name(name)
    assert len(made) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", made)


def test_names_that_look_alike_make_different_objects():
    assert len({object_name(name) for name in ("A-b", "a_b", "a-b", "a b", "Ä", "Ö", "a" * 254, "a" * 255)}) == 8
