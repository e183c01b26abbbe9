"""Records as objects and back; names that Kubernetes allows; the store's URL."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm.apis.registry import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
)
from nsm.apis.wellknown import Timestamp
from nsm.services.registry.custom_resources.names import object_name
from nsm.services.registry.custom_resources.objects import ENDPOINT_FORM, SERVICE_FORM
from nsm.services.registry.store_url import StoreUrl, store_url

text = st.text(max_size=8)
labels = st.dictionaries(text, text, max_size=3)
times = st.none() | st.builds(Timestamp, seconds=st.integers(-(2**40), 2**40), nanos=st.integers(0, 999_999_999))
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


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from([*SERVICE_FORM.fields, *ENDPOINT_FORM.fields, "seconds", "labels", "routes"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_nonsense_is_a_value_error_and_nothing_else(spec):
    for form in (SERVICE_FORM, ENDPOINT_FORM):
        with suppress(ValueError):
            form.from_object({"metadata": {"name": "x"}, "spec": spec})


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [("memory:", StoreUrl("memory")), ("k8s:", StoreUrl("k8s")), ("k8s:nsm-system", StoreUrl("k8s", "nsm-system"))],
)
def test_a_store_url(value, expected):
    assert store_url(value) == expected


@pytest.mark.parametrize("value", ["", "k8s", "sqlite:/x", "memory:x", "k8s:Upper", "k8s:a/b"])
def test_a_store_url_that_cannot_work(value):
    with pytest.raises(ValueError, match="expected"):
        store_url(value)
