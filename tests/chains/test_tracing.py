"""What a span says of the call that it was opened for."""

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import RegistryCall
from nsm.chains.testing import call
from nsm.chains.tracing import _Hooks, attributes_of


def test_a_span_can_be_found_by_connection_service_client_endpoint_and_mechanism():
    asked = call("c-at-endpoint", "icmp", path=Path(path_segments=[PathSegment(name="web"), PathSegment(name="nsmgr")]))
    assert attributes_of(asked) == {
        "nsm.connection": "c-at-endpoint",
        "nsm.network_service": "icmp",
        "nsm.client": "web",
    }
    answer = Connection(
        id="of-another-hop",
        network_service="icmp",
        network_service_endpoint_name="nse",
        mechanism=Mechanism(type="KERNEL"),
        path=asked.connection.path,
    )
    assert attributes_of(asked, answer) == {
        "nsm.connection": "c-at-endpoint",
        "nsm.network_service": "icmp",
        "nsm.client": "web",
        "nsm.endpoint": "nse",
        "nsm.mechanism": "KERNEL",
    }


def test_a_span_of_the_registry_says_which_record():
    assert attributes_of(RegistryCall(NetworkServiceEndpoint(name="nse"))) == {"nsm.record": "nse"}
    assert attributes_of(RegistryCall(NetworkServiceEndpoint(network_service_names=["any"]))) == {}


@pytest.mark.parametrize(("sampler", "told"), [("always_on", ["c"]), ("always_off", [])])
def test_nothing_is_collected_for_a_span_that_is_not_recorded(sampler, told, monkeypatch):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    provider, exporter, asked = TracerProvider(), InMemorySpanExporter(), []
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(
        "nsm.chains.tracing.attributes_of", lambda call, _: asked.append(call) or {"nsm.connection": "c"}
    )
    hooks = _Hooks(provider.get_tracer("nsm"))
    with hooks.span("authorize.Request"):
        hooks.describe(call("c"))
    provider.shutdown()
    assert [span.attributes["nsm.connection"] for span in exporter.get_finished_spans()] == told
    assert len(asked) == len(told)
