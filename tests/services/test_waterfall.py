"""Spans as lines: in the order of the way, with what each took itself."""

from nsm.mesh.waterfall import Span, render


def test_a_span_shows_its_own_time_and_components_nest():
    ms = 1_000_000
    spans = [
        Span("t", "a", "", "networkservice.NetworkService/Request", "client", 0, 10 * ms),
        Span("t", "b", "a", "networkservice.NetworkService/Request", "nsmgr", 2 * ms, 9 * ms),
        Span("t", "c", "b", "discover.Request", "nsmgr", 3 * ms, 5 * ms),
        Span("u", "d", "", "other.Request", "nsmgr", 0, ms),
    ]
    head, *lines = render(spans).splitlines()
    assert head.split()[:4] == ["service", "span", "ms", "own"]
    assert [line.split()[:4] for line in lines] == [
        ["client", "NetworkService/Request", "10.00", "3.00"],
        ["nsmgr", "NetworkService/Request", "7.00", "5.00"],
        ["nsmgr", "discover.Request", "2.00", "2.00"],
    ]
    assert lines[1].startswith("nsmgr                NetworkService")
    assert [line.index("█") - lines[0].index("█") for line in lines] == [0, 8, 13]


def test_no_spans_are_no_table():
    assert render([]) == "there are no spans"
