"""What people write into the annotation: what is taken, and the sentence about what is not."""

import pytest

from nsm.webhook.annotation import Served, read


def test_a_list_of_urls_is_kept_as_it_stands():
    value = "kernel://first/nsm-1?app=web&tier=x, memif://second , vfio://third"
    assert read(value).value == value


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_one_asks_for_nothing(value):
    assert read(value) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("kernl://web", "'kernl://web': mechanism kernl is unknown; use kernel://, memif:// or vfio://"),
        ("web", "'web' names no service; expected one such as kernel://my-service/nsm-1?app=web"),
        ("kernel://", "'kernel://' names no service; expected one such as kernel://my-service/nsm-1?app=web"),
        ("kernel:///nsm-1", "'kernel:///nsm-1' names no service; expected one such as"),
        (",", "',' has no URL; expected one such as kernel://my-service/nsm-1?app=web"),
        ("kernel://a/b%zz", "'kernel://a/b%zz' cannot be parsed: it has a control character, or a % without"),
        (
            "kernel://a/sixteen-letters-",
            "'sixteen-letters-' has 16 bytes; an interface name has at most 15",
        ),
        ("kernel://a/sixteen-bytés-1", "'sixteen-bytés-1' has 16 bytes"),
        ("kernel://a/b:c", "'b:c' has a space, a slash or a colon, which an interface name cannot have"),
        ("kernel://a/..", "'..' is not an interface name"),
        ("kernel://a/all", "'all' is not an interface name; choose another, such as nsm-1"),
        ("kernel://a/default", "'default' is not an interface name"),
        ("kernel://a/lo", "'lo' is a name that the kernel reserves"),
        ("kernel://a/gre0", "'gre0' is a name that the kernel reserves"),
        ("kernel://a/eth0", "'kernel://a/eth0': eth0 is the pod's own interface; choose another name, such as nsm-1"),
        ("kernel://a?app", "'kernel://a?app': label 'app' has no =; expected ?label=value&label=value"),
        (
            "kernel://a/nsm-1,kernel://b/nsm-1",
            "interface 'nsm-1' is requested twice; each wire needs its own name",
        ),
    ],
)
def test_what_cannot_be_meant_is_named_in_one_sentence(value, sentence):
    with pytest.raises(ValueError) as caught:
        read(f"kernel://good/good-1,{value}" if value != "," else value)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


KERNEL_ONLY = Served(mechanisms={"KERNEL"}, domains=())


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("memif://web", "'memif://web': nothing in this cluster serves memif:// (NSM_MECHANISMS); use kernel://"),
        ("vfio://web", "'vfio://web': nothing in this cluster serves vfio:// (NSM_MECHANISMS); use kernel://"),
        ("kernl://web", "'kernl://web': mechanism kernl is unknown; use kernel://"),
        ("kernel://web@far", "'kernel://web@far': services of the domain 'far' cannot be reached from here (NSM_DOMAI"),
    ],
)
def test_what_nothing_in_the_cluster_serves_is_refused_where_it_is_written(value, sentence):
    """Its pod would ask for it for ever."""
    with pytest.raises(ValueError) as caught:
        read(value, KERNEL_ONLY)
    assert str(caught.value).startswith(sentence)


def test_a_cluster_that_has_other_mechanisms_and_domains_admits_them():
    served = Served(mechanisms={"KERNEL", "MEMIF"}, domains=("far", "further"))
    assert read("memif://web@far,kernel://web@further", served) is not None
    with pytest.raises(ValueError, match="domain 'else'"):
        read("kernel://web@else", served)


def test_two_wires_of_one_service_without_names_may_be_asked_for():
    assert read("kernel://a,kernel://a") is not None


def test_devices_are_counted_by_the_first_token_of_each_url():
    value = "vfio://a?sriovToken=d.io/10G,kernel://b?sriovToken=d.io/10G&sriovToken=d.io/1G,vfio://c?sriovToken=d.io/1G,kernel://d"
    assert read(value).devices == {"d.io/10G": 2, "d.io/1G": 1}
