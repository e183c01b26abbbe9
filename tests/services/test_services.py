"""A client's list of services, and its file: what of it counts, and what people are told of the rest."""

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from nsm.chains.model.nsurl import parse_strict_nsurl
from nsm.services.nsc.services import Services, parse


def names(wanted):
    return [f"{each.network_service}/{each.interface}" for each in wanted]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kernel://a/nsm-1\nkernel://b/nsm-2\n", ["a/nsm-1", "b/nsm-2"]),
        ("kernel://a/nsm-1,kernel://b/nsm-2", ["a/nsm-1", "b/nsm-2"]),
        (" kernel://a/nsm-1 , kernel://b/nsm-2,\r\n\r\nkernel://c/nsm-3", ["a/nsm-1", "b/nsm-2", "c/nsm-3"]),
        ("# ours\nkernel://a/nsm-1  # for web\n  # kernel://b\n\t#c", ["a/nsm-1"]),
        ("kernel://a\nkernel://a", ["a/", "a/"]),
        ("# none", []),
    ],
)
def test_a_file_has_a_url_a_line_or_the_text_of_an_annotation(text, expected):
    assert names(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is empty; write a line that begins with # to have no wires"),
        (" \n\n", "it is empty; write a line that begins with # to have no wires"),
        (
            "kernel://a\n\nkernel://b?app",
            "line 3: 'kernel://b?app': label 'app' has no =; expected ?label=value&label=value",
        ),
        ("kernel://a\nb", "line 2: 'b' names no service; expected one such as kernel://my-service/nsm-1?app=web"),
        ("kernel://a#b", "line 1: 'kernel://a#b' has a #, which would hide the rest; write %23 for it in a label"),
        ("vxlan://a", "line 1: mechanism vxlan is not supported by this client; use kernel://, memif:// or vfio://"),
        (
            "kernel://a/much-too-long-a-name",
            "line 1: 'much-too-long-a-name' has 20 bytes; an interface name has at most 15",
        ),
        ("kernel://a/x\nkernel://b/x", "line 2: interface 'x' is requested twice, first in line 1"),
        ("kernel://a/x,kernel://b/x", "line 1: interface 'x' is requested twice, first in line 1"),
        ("# " + "x" * (1 << 20), "it has more than 1048576 characters"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_the_line(text, fault):
    with pytest.raises(ValueError) as raised:
        parse(text)
    assert str(raised.value).startswith(fault)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "services"


def write(file, text):
    file.write_text(text)
    os.utime(file, (1, hash(text) % 10**6))  # of long ago: what was written just now may be written again


def warnings(logs):
    return [line["error"] for line in logs if line["log_level"] == "warning"]


async def test_without_a_file_the_list_is_what_it_is():
    listed = [parse_strict_nsurl("kernel://a")]
    assert [wanted async for wanted in Services(listed).lists()] == [listed]


async def test_a_file_counts_alone_as_soon_as_it_can_be_used(file):
    """The environment of a pod's containers has what the annotation was when the pod was made."""
    with capture_logs() as logs:
        lists = Services([parse_strict_nsurl("kernel://old")], str(file)).lists()
        assert names(await anext(lists)) == ["old/"]
        write(file, "kernel://new")
        assert names(await anext(lists)) == ["new/"]
    assert [line["event"] for line in logs] == [
        "NSM_NETWORK_SERVICES applies until the file of services can be used",
        "the file of services can be used",
    ]
    assert names(await anext(Services([parse_strict_nsurl("kernel://old")], str(file)).lists())) == ["new/"]


async def test_a_client_that_knows_of_no_service_yet_says_why_and_waits(file):
    told = []
    lists = Services([], str(file), told.append).lists()
    write(file, "kernel://a?b")
    waiting = anext(lists)
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(5)
    write(file, "kernel://a?b=c")
    assert names(await task) == ["a/"]
    (why, nothing) = told
    assert why.startswith(f"NSM_NETWORK_SERVICES_FILE='{file}': line 1: 'kernel://a?b': label 'b' has no =")
    assert nothing == ""


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda file: write(file, ""), "it is empty; write"),
        (lambda file: write(file, "kernel://a\nkernel://"), "line 2: 'kernel://' names no service"),
        (lambda file: file.unlink(), "there is no such file"),
        (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
        (lambda file: file.write_bytes(b"kernel://\xff"), "it is not UTF-8 text"),
    ],
)
async def test_a_file_that_cannot_be_used_any_more_changes_nothing_and_is_one_warning(file, spoil, fault):
    write(file, "kernel://a")
    with capture_logs() as logs:
        lists = Services([], str(file)).lists()
        assert names(await anext(lists)) == ["a/"]
        next_one = asyncio.ensure_future(anext(lists))
        spoil(file)
        await asyncio.sleep(60)
        assert not next_one.done()
        (told,) = warnings(logs)
        assert told.startswith(fault)
        if file.is_dir():
            file.rmdir()
        write(file, "kernel://a,kernel://b")
        assert names(await next_one) == ["a/", "b/"]
    assert logs[-1]["event"] == "the file of services can be used"


async def test_a_link_that_is_switched_is_seen_as_kubelet_does_it(tmp_path):
    for version, text in (("v1", "kernel://a"), ("v2", "kernel://b")):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "services", text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "services").symlink_to("..data/services")
    lists = Services([], str(tmp_path / "services")).lists()
    assert names(await anext(lists)) == ["a/"]
    (tmp_path / "..next").symlink_to("v2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    assert names(await anext(lists)) == ["b/"]
