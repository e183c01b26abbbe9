"""The steps of the local DNS server, each with servers that are functions; time is virtual."""

import asyncio

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import hypothesis
import pytest
from hypothesis import strategies as st

from nsm.apis.connectioncontext import DnsConfig
from nsm.services.dns.cache import Cache, lifetime_of
from nsm.services.dns.configs import MOST_SERVERS, collected
from nsm.services.dns.domains import MOST_DOMAINS
from nsm.services.dns.fanout import PATIENCE, Fanout
from nsm.services.dns.proxy import answers
from nsm.services.dns.query import Query, failure, listed
from nsm.services.dns.server import reply_to

SOA = "zone.test. 600 IN SOA ns.zone.test. admin.zone.test. 1 2 3 4 20"


def question(name, kind="A", **options):
    return dns.message.make_query(name, kind, **options)


def records(message, *texts, rcode=dns.rcode.NOERROR, authority=()):
    answer = dns.message.make_response(message)
    answer.set_rcode(rcode)
    answer.answer = [dns.rrset.from_text(*text.split(maxsplit=4)) for text in texts]
    answer.authority = [dns.rrset.from_text(*text.split(maxsplit=4)) for text in authority]
    return answer


def zone(names):
    """A server that knows the addresses of some names, and says of all others that they are not there."""

    async def ask(message, server):
        asked.append((server, message.question[0].name.to_text(), message.id))
        name, kind = message.question[0].name.to_text().lower(), dns.rdatatype.to_text(message.question[0].rdtype)
        known = names.get(server, {}).get(name)
        if isinstance(known, Exception):
            raise known
        if isinstance(known, tuple):
            delay, known = known
            await asyncio.sleep(delay)
        if known is None:
            return records(message, rcode=dns.rcode.NXDOMAIN)
        return records(message, *([f"{name} 60 IN A {known}"] if kind == "A" else []))

    asked = []
    ask.asked = asked
    return ask


def found(answer):
    return [record.to_text() for rrset in answer.answer for record in rrset]


def one(*servers, domains=()):
    return {"c": [DnsConfig(dns_server_ips=list(servers), search_domains=list(domains))]}


# --- the whole


async def test_a_name_is_looked_up_at_the_servers_of_all_connections_and_of_the_workload():
    ask = zone(
        {"10.0.0.1": {"a.one.": "192.0.2.1"}, "10.0.0.2": {"b.two.": "192.0.2.2"}, "10.9.9.9": {"org.": "192.0.2.3"}}
    )
    configs = {
        **one("10.0.0.1"),
        "d": [DnsConfig(dns_server_ips=["10.0.0.2"])],
        "": [DnsConfig(dns_server_ips=["10.9.9.9"])],
    }
    answer = answers(configs, "127.0.0.1", ask)
    assert found(await answer(Query(question("a.one")))) == ["192.0.2.1"]
    assert found(await answer(Query(question("b.two")))) == ["192.0.2.2"]
    assert found(await answer(Query(question("org")))) == ["192.0.2.3"]
    del configs["d"]
    assert (await answer(Query(question("b.two")))).rcode() == dns.rcode.NXDOMAIN


async def test_an_answer_has_the_question_s_id_and_spelling_and_offers_recursion():
    answer = answers(one("10.0.0.1"), "127.0.0.1", zone({"10.0.0.1": {"web.one.": "192.0.2.1"}}))
    asked = question("wEb.One", id=77)
    got = await answer(Query(asked))
    assert (got.id, got.question[0].name.to_text()) == (77, "wEb.One.")
    assert got.flags & dns.flags.RA
    assert got.flags & dns.flags.QR
    assert asked.is_response(got)


async def test_without_any_server_the_answer_is_that_there_is_none():
    assert (await answers({}, "127.0.0.1", zone({}))(Query(question("a")))).rcode() == dns.rcode.SERVFAIL


# --- check message


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda m: m.set_opcode(dns.opcode.UPDATE), dns.rcode.NOTIMP),
        (lambda m: m.question.clear(), dns.rcode.FORMERR),
        (lambda m: m.question.append(m.question[0]), dns.rcode.FORMERR),
        (lambda m: setattr(m, "question", question("a", "AXFR").question), dns.rcode.REFUSED),
        (lambda m: setattr(m, "question", question("a", rdclass="CH").question), dns.rcode.REFUSED),
    ],
)
async def test_what_is_no_plain_question_is_refused_and_nobody_asked(change, rcode):
    ask = zone({})
    message = question("a")
    change(message)
    assert (await answers(one("10.0.0.1"), "127.0.0.1", ask)(Query(message))).rcode() == rcode
    assert ask.asked == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"x" * 12, b"\xff" * 600, dns.message.make_response(question("a")).to_wire()],
    ids=["empty", "a byte", "letters", "ones", "an answer"],
)
async def test_nothing_is_said_to_what_is_no_question(data):
    """Else two servers could keep each other busy."""

    async def never(query):
        raise AssertionError

    assert await reply_to(data, never, largest=lambda _: 512) is None


@hypothesis.given(
    data=st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda tail: question("a.b").to_wire() + tail))
)
def test_no_bytes_break_the_server(data):
    """Whatever comes: an answer to what can be read, or silence."""

    async def answer(query):
        return await answers(one("10.0.0.1"), "127.0.0.1", zone({}))(query)

    reply = asyncio.run(reply_to(data, answer, largest=lambda _: 512))
    assert reply is None or reply[:2] == data[:2]


async def test_no_more_servers_are_asked_at_once_than_there_are_sockets_for(monkeypatch):
    monkeypatch.setattr("nsm.services.dns.fanout.AT_ONCE", 3)
    now, most = 0, 0

    async def ask(message, server):
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.1)
        finally:
            now -= 1
        return records(message)

    rest = listed([Fanout(ask)])
    await asyncio.gather(*(rest(Query(question(f"n{n}"), servers=("s", "t"))) for n in range(9)))
    assert most == 3


async def test_a_question_takes_five_seconds_at_most_and_a_defect_is_an_answer_too():
    async def sleeps(query):
        await asyncio.sleep(60)

    async def breaks(query):
        raise RuntimeError("a defect")

    began = asyncio.get_running_loop().time()
    for broken in (sleeps, breaks):
        reply = await reply_to(question("a").to_wire(), broken, largest=lambda _: 512)
        assert dns.message.from_wire(reply).rcode() == dns.rcode.SERVFAIL
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)


async def test_an_answer_that_is_too_long_for_a_datagram_says_that_it_was_cut():
    async def long(query):
        return records(query.message, *(f"a. 60 IN TXT {'x' * 200}{n}" for n in range(9)))

    reply = await reply_to(question("a", "TXT").to_wire(), long, largest=lambda _: 512)
    assert len(reply) <= 512
    assert dns.message.from_wire(reply).flags & dns.flags.TC


# --- configurations


def test_servers_and_domains_are_collected_once_in_their_order_without_our_own_address():
    configs = [
        [DnsConfig(dns_server_ips=["10.0.0.2", "10.0.0.1"], search_domains=["B.test", "a.test."])],
        [DnsConfig(dns_server_ips=["10.0.0.1", "127.0.0.1"], search_domains=["a.test", "b.test."])],
    ]
    servers, domains = collected(configs, "127.0.0.1")
    assert servers == ("10.0.0.2", "10.0.0.1")
    assert [domain.to_text() for domain in domains] == ["b.test.", "a.test."]


def test_what_an_endpoint_says_that_is_no_address_or_domain_is_left_out_and_so_is_too_much():
    nonsense = DnsConfig(dns_server_ips=["dns.test", "0.0.0.0", ""], search_domains=["a b", "", "..", "x" * 64])
    assert collected([[nonsense]], "127.0.0.1") == ((), ())
    much = DnsConfig(
        dns_server_ips=[f"10.0.0.{n}" for n in range(1, 99)], search_domains=[f"d{n}.test" for n in range(99)]
    )
    servers, domains = collected([[much]], "127.0.0.1")
    assert (len(servers), len(domains)) == (MOST_SERVERS, MOST_DOMAINS)


# --- searches


async def test_a_name_is_tried_as_it_is_and_then_in_each_domain():
    ask = zone({"10.0.0.1": {"web.two.test.": "192.0.2.1"}})
    answer = answers(one("10.0.0.1", domains=["one.test", "two.test"]), "127.0.0.1", ask)
    got = await answer(Query(question("web")))
    assert [rrset.to_text() for rrset in got.answer] == [
        "web. 60 IN CNAME web.two.test.",
        "web.two.test. 60 IN A 192.0.2.1",
    ]
    assert got.rcode() == dns.rcode.NOERROR
    assert got.question[0].name.to_text() == "web."
    assert [name for _, name, _ in ask.asked] == ["web.", "web.one.test.", "web.two.test."]


async def test_a_name_that_exists_is_not_searched_though_it_has_no_such_record():
    ask = zone({"10.0.0.1": {"web.": "192.0.2.1", "web.one.test.": "192.0.2.2"}})
    got = await answers(one("10.0.0.1", domains=["one.test"]), "127.0.0.1", ask)(Query(question("web", "AAAA")))
    assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
    assert len(ask.asked) == 1


async def test_what_is_nowhere_is_told_for_the_name_as_it_is():
    got = await answers(one("10.0.0.1", domains=["one.test"]), "127.0.0.1", zone({}))(Query(question("web")))
    assert (got.rcode(), got.question[0].name.to_text(), got.answer) == (dns.rcode.NXDOMAIN, "web.", [])


@pytest.mark.parametrize("name", ["1.2.0.192.in-addr.arpa", ".", ".".join(["x" * 60] * 4)])
async def test_addresses_the_root_and_what_gets_too_long_are_not_searched(name):
    ask = zone({})
    await answers(one("10.0.0.1", domains=["one.test.and.long.enough"]), "127.0.0.1", ask)(Query(question(name)))
    assert len(ask.asked) == 1


# --- no loop


async def test_a_question_that_comes_back_to_us_ends_there():
    """A server that asks whom it is asked by, with the same message."""

    async def comes_back(message, server):
        got = await answer(Query(dns.message.from_wire(message.to_wire())))
        assert got.rcode() == dns.rcode.REFUSED
        return got

    answer = answers(one("10.0.0.1"), "127.0.0.1", comes_back)
    assert (await answer(Query(question("a")))).rcode() == dns.rcode.REFUSED


async def test_a_question_that_comes_back_under_another_id_does_not_multiply():
    asked = []

    async def forwards(message, server):
        asked.append(message)
        return await answer(Query(question("a", id=(message.id + 1) % 65536)))

    answer = answers(one("10.0.0.1"), "127.0.0.1", forwards)
    reply = await reply_to(question("a").to_wire(), answer, largest=lambda _: 512)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.SERVFAIL
    assert len(asked) == 1


async def test_every_question_that_leaves_has_an_id_of_its_own():
    ask = zone({})
    answer = answers(one("10.0.0.1"), "127.0.0.1", ask)
    for n in range(20):
        await answer(Query(question(f"n{n}", id=7)))
    assert len({message_id for _, _, message_id in ask.asked}) > 10


# --- cache


async def test_an_answer_is_kept_until_its_time_is_over_and_counts_down():
    ask = zone({"10.0.0.1": {"a.": "192.0.2.1"}})
    answer = answers(one("10.0.0.1"), "127.0.0.1", ask)
    ttls = []
    for pause in (0, 10.5, 49, 1):
        await asyncio.sleep(pause)
        ttls.append((await answer(Query(question("a")))).answer[0].ttl)
    assert ttls == [60, 50, 1, 60]
    assert len(ask.asked) == 2


async def test_another_kind_or_other_servers_are_another_question():
    ask = zone({"10.0.0.1": {"a.": "192.0.2.1"}, "10.0.0.2": {"a.": "192.0.2.2"}})
    configs = one("10.0.0.1")
    answer = answers(configs, "127.0.0.1", ask)
    await answer(Query(question("a")))
    await answer(Query(question("a", "AAAA")))
    configs.update(one("10.0.0.2"))
    assert found(await answer(Query(question("a")))) == ["192.0.2.2"]
    assert len(ask.asked) == 3


async def test_the_same_question_at_the_same_time_is_asked_once():
    ask = zone({"10.0.0.1": {"a.": (1, "192.0.2.1")}})
    answer = answers(one("10.0.0.1"), "127.0.0.1", ask)
    got = await asyncio.gather(*(answer(Query(question("a", id=n))) for n in range(1, 20)))
    assert [g.id for g in got] == list(range(1, 20))
    assert len(ask.asked) == 1


async def test_who_gives_up_does_not_end_the_question_for_those_who_wait():
    ask = zone({"10.0.0.1": {"a.": (1, "192.0.2.1")}})
    answer = answers(one("10.0.0.1"), "127.0.0.1", ask)
    first, second, third = (asyncio.ensure_future(answer(Query(question("a")))) for _ in range(3))
    await asyncio.sleep(0.5)
    first.cancel()
    await asyncio.sleep(0)
    second.cancel()
    assert found(await third) == ["192.0.2.1"]
    assert first.cancelled()


async def test_all_who_wait_can_be_cancelled_at_once():
    ask = zone({"10.0.0.1": {"a.": (1, "192.0.2.1")}})
    answer = answers(one("10.0.0.1"), "127.0.0.1", ask)
    waiting = [asyncio.ensure_future(answer(Query(question("a")))) for _ in range(3)]
    await asyncio.sleep(0.5)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting, timeout=0.1)
    assert all(task.cancelled() for task in waiting)
    assert len(ask.asked) == 1


async def test_the_cache_has_an_end():
    cache = Cache(3)
    answer = listed([cache, Fanout(zone({"s": {f"n{n}.": "192.0.2.1" for n in range(9)}}))])
    for n in range(9):
        await answer(Query(question(f"n{n}"), servers=("s",)))
    assert len(cache) == 3


async def test_nobody_changes_what_is_kept():
    answer = answers(one("10.0.0.1"), "127.0.0.1", zone({"10.0.0.1": {"a.": "192.0.2.1"}}))
    for _ in range(2):
        got = await answer(Query(question("a")))
        assert found(got) == ["192.0.2.1"]
        got.answer[0].ttl = 5
        got.answer.clear()


@pytest.mark.parametrize(
    ("texts", "options", "seconds"),
    [
        (["a. 60 IN A 192.0.2.1", "b. 30 IN A 192.0.2.1"], {}, 30),
        (["a. 99999 IN A 192.0.2.1"], {}, 3600),
        (["a. 0 IN A 192.0.2.1"], {}, 0),
        ([], {"rcode": dns.rcode.NXDOMAIN, "authority": [SOA]}, 20),
        ([], {"rcode": dns.rcode.NXDOMAIN}, 0),
        ([], {"authority": [SOA]}, 20),
        ([], {"rcode": dns.rcode.SERVFAIL, "authority": [SOA]}, 0),
    ],
)
def test_how_long_an_answer_is_kept(texts, options, seconds):
    assert lifetime_of(records(question("a"), *texts, **options)) == seconds


def test_an_answer_that_was_cut_is_not_kept():
    answer = records(question("a"), "a. 60 IN A 192.0.2.1")
    answer.flags |= dns.flags.TC
    assert lifetime_of(answer) == 0


# --- fanout


async def ask_all(names, servers):
    fanout, loop = Fanout(zone(names)), asyncio.get_running_loop()
    began = loop.time()
    answer = await listed([fanout])(Query(question("a"), servers=servers))
    return answer, loop.time() - began


async def test_the_first_server_that_knows_counts():
    answer, seconds = await ask_all({"s": {"a.": (2, "192.0.2.1")}, "t": {"a.": (0.1, "192.0.2.2")}}, ("s", "t"))
    assert found(answer) == ["192.0.2.2"]
    assert seconds == pytest.approx(0.1)


async def test_a_server_that_knows_is_better_than_a_faster_one_that_does_not():
    answer, _ = await ask_all({"s": {"a.": (0.3, "192.0.2.1")}}, ("s", "t"))
    assert found(answer) == ["192.0.2.1"]


async def test_a_server_that_is_silent_does_not_hold_up_that_there_is_no_such_name():
    answer, seconds = await ask_all({"s": {"a.": (99, "192.0.2.1")}}, ("s", "t"))
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert seconds == pytest.approx(PATIENCE)


@pytest.mark.parametrize("error", [OSError("unreachable"), TimeoutError(), ValueError("nonsense")])
async def test_servers_that_fail_are_passed_over(error):
    answer, _ = await ask_all({"s": {"a.": error}, "t": {"a.": "192.0.2.1"}}, ("s", "t"))
    assert found(answer) == ["192.0.2.1"]
    answer, _ = await ask_all({"s": {"a.": error}}, ("s",))
    assert answer.rcode() == dns.rcode.SERVFAIL


async def test_no_such_name_is_better_than_a_server_that_failed():
    async def ask(message, server):
        return failure(message, dns.rcode.REFUSED if server == "s" else dns.rcode.NXDOMAIN)

    for servers in (("s", "t"), ("t", "s")):
        answer = await listed([Fanout(ask)])(Query(question("a"), servers=servers))
        assert answer.rcode() == dns.rcode.NXDOMAIN


async def test_no_task_is_left_when_one_server_has_answered():
    before = asyncio.all_tasks()
    await ask_all({"s": {"a.": (99, "192.0.2.1")}, "t": {"a.": "192.0.2.2"}}, ("s", "t"))
    assert asyncio.all_tasks() == before
