"""Prefixes that no wire may use, out of the manager's file."""

import pytest
import structlog

from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import Begin, Chain, Unavailable
from nsm.chains.elements.excluded_prefixes import ExcludedPrefixes, prefixes_of
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Fail, Record
from tests.chains.elements.addresses import again, ask


@pytest.fixture
def file(tmp_path):
    return tmp_path / "excluded_prefixes.yaml"


async def test_the_file_s_prefixes_are_added_to_the_client_s_each_once(file):
    chain = Chain([Begin(), ExcludedPrefixes(str(file))])
    assert await ask(chain, "a") == IpContext()
    file.write_text("prefixes: [10.96.0.0/12, fd00::/8, 10.96.0.0/12, 10.96.3.4/12]")
    context = await ask(chain, "b", excluded_prefixes=["fd00::/8", "172.16.0.0/12", "fd00::/8"])
    assert context.excluded_prefixes == ["fd00::/8", "172.16.0.0/12", "10.96.0.0/12"]


async def test_a_prefix_that_was_taken_out_of_the_file_goes_with_the_next_refresh(file):
    """Unless the client itself excludes it; also if a refresh failed meanwhile."""
    file.write_text("prefixes: [10.0.0.0/8, 11.0.0.0/8]")
    probe, fail = Record(), Fail()
    chain = Chain([Begin(), ExcludedPrefixes(str(file)), probe, fail])
    context = await ask(chain, excluded_prefixes=["11.0.0.0/8"])
    assert context.excluded_prefixes == ["11.0.0.0/8", "10.0.0.0/8"]
    file.write_text("prefixes: [12.0.0.0/8]")
    fail.errors = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await again(chain, context)
    context = await again(chain, context)
    assert context.excluded_prefixes == ["11.0.0.0/8", "12.0.0.0/8"]
    file.write_text("")
    assert (await again(chain, context)).excluded_prefixes == ["11.0.0.0/8"]


async def test_an_endpoint_gives_other_addresses_when_its_were_excluded(file):
    chain = Chain([Begin(), ExcludedPrefixes(str(file)), Point2PointIpam(["10.0.0.0/24"])])
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.1/32"]
    file.write_text("prefixes: [10.0.0.0/28]")
    context = await again(chain, context)
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.17/32"], ["10.0.0.16/32"])


async def test_a_file_that_cannot_be_used_is_told_and_what_it_said_before_stays(file):
    file.write_text("prefixes: [10.0.0.0/99]")
    with structlog.testing.capture_logs() as logs:
        chain = Chain([Begin(), ExcludedPrefixes(str(file))])
    assert "'10.0.0.0/99' is not a prefix; expected one such as 10.96.0.0/12" in logs[0]["error"]
    file.write_text("prefixes: [10.0.0.0/8]")
    assert (await ask(chain, "a")).excluded_prefixes == ["10.0.0.0/8"]
    file.write_text("prefixes: 10.0.0.0/9")
    assert (await ask(chain, "b")).excluded_prefixes == ["10.0.0.0/8"]


@pytest.mark.parametrize("document", [None, {}, {"prefixes": None}, {"prefixes": []}])
def test_what_names_no_prefixes(document):
    assert prefixes_of(document) == ()


@pytest.mark.parametrize("document", ["10.0.0.0/8", ["10.0.0.0/8"], {"prefixes": "10.0.0.0/8"}, {"prefixes": [10]}, 7])
def test_what_is_no_list_of_prefixes(document):
    with pytest.raises(ValueError, match="such as"):
        prefixes_of(document)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('""', "prefixes[0]: '' is not a prefix"),
        ("10.0.0.300/8", "prefixes[0]: '10.0.0.300/8' is not a prefix"),
        ("10.1.2.3", "prefixes[0]: '10.1.2.3' is not a prefix"),
        ("{a: b}", "prefixes[0]: a dict is not a prefix"),
        ("7", "prefixes[0]: 7 is not a prefix"),
    ],
)
async def test_one_unreadable_entry_leaves_the_others_in_force_from_the_start_and_both_are_told(file, entry, told):
    file.write_text(f"prefixes: [{entry}, 10.0.0.0/8, fd00::/8]")
    with structlog.testing.capture_logs() as logs:
        chain = Chain([Begin(), ExcludedPrefixes(str(file))])
        assert (await ask(chain)).excluded_prefixes == ["10.0.0.0/8", "fd00::/8"]
        await ask(chain, "another")
    (warning,) = [log for log in logs if log["log_level"] == "warning"]
    assert warning["error"].startswith(told)
    assert warning["error"].endswith("in force: 10.0.0.0/8, fd00::/8")


async def test_what_was_excluded_stays_so_while_a_part_of_the_file_cannot_be_read(file):
    """The unreadable entry may be one of them."""
    file.write_text("prefixes: [10.0.0.0/8, 11.0.0.0/8]")
    chain = Chain([Begin(), ExcludedPrefixes(str(file))])
    await ask(chain, "a")
    file.write_text("prefixes: [10.0.0.0/8, 12.0.0.0/8, 11.0.0.0/88]")
    assert (await ask(chain, "b")).excluded_prefixes == ["10.0.0.0/8", "12.0.0.0/8", "11.0.0.0/8"]
    file.write_text("prefixes: [10.0.0.0/8, 12.0.0.0/8]")
    assert (await ask(chain, "c")).excluded_prefixes == ["10.0.0.0/8", "12.0.0.0/8"]


async def test_a_misspelt_key_is_told_with_the_right_one_and_lets_no_prefix_go(file):
    file.write_text("prefixes: [10.0.0.0/8]")
    chain = Chain([Begin(), ExcludedPrefixes(str(file))])
    await ask(chain, "a")
    for text in ("prefixs: [11.0.0.0/8]", "prefixes: [11.0.0.0/8]\nprefixes: [12.0.0.0/8]"):
        file.write_text(text)
        with structlog.testing.capture_logs() as logs:
            assert (await ask(chain, text)).excluded_prefixes == ["10.0.0.0/8"]
        assert logs[0]["error"] in {
            "prefixs is not a field of the file; expected prefixes",
            "line 2: the key 'prefixes' is given twice",
        }


def test_a_file_that_was_named_and_is_not_there_is_a_warning(tmp_path):
    with structlog.testing.capture_logs() as logs:
        ExcludedPrefixes(str(tmp_path / "misspelt.yaml"))
    assert logs[0]["event"] == "the configuration file does not exist yet"


@pytest.mark.parametrize("most", [list, lambda inner: dict(enumerate(inner))])
def test_aliases_in_aliases_are_told_in_one_line(most):
    """A few hundred bytes of YAML that would be hundreds of megabytes of text."""
    item = most(["x"] * 10)
    for _ in range(4):
        item = most([item] * 10)
    with pytest.raises(ValueError, match=r"a (list|dict) is not a prefix") as refused:
        prefixes_of({"prefixes": [item]})
    assert len(str(refused.value)) < 100
