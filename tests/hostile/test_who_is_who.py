"""A workload says that it is another one: in tokens that it signs itself, in a path that it makes up, in metadata."""

import json
import time
from contextlib import suppress

import pytest

from nsm.apis.connection import Path, PathSegment, State
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.chains.core import InvalidRequest, MeshError, NotFound, Refused, RegistryPath

from .attacker import endpoint_record, seconds_from_now, service_record

FAR = "9999-12-31T23:59:59Z"
DAY = 24 * 3600


@pytest.fixture
def attacked(target):
    return target


@pytest.fixture
async def connection(victim):
    """A connection of the victim's, as it was answered."""
    made = await victim.request(victim.connection("of-the-victim"), victim.kernel("vic0"), files=[victim.network])
    yield made
    await victim.close(made)


async def stands(victim, connection):
    """Whether the manager still has the victim's connection, unchanged."""
    shown = {key: c for event in await victim.monitor() for key, c in event.connections.items()}
    own_id = connection.path.path_segments[1].id
    if own_id not in shown:
        return False
    now, then = shown[own_id].context.ip_context, connection.context.ip_context
    return (now.src_ip_addrs, now.dst_routes) == (then.src_ip_addrs, then.dst_routes)


async def lies(attacker, connection, url):
    """Tokens for the caller's segment: each with the key that TLS has seen."""
    manager = (await attacker.peer(url)).spiffe_id
    subject = attacker.target.id_of("victim")
    return [
        attacker.token(sub=subject, aud=[manager]),
        attacker.token(sub=attacker.spiffe_id, aud=[manager]),
        attacker.token(sub=subject, aud=[manager, subject]),
        attacker.token(sub=manager, aud=[manager]),
    ]


def of_the_victim(connection, index=0, **fields):
    """The victim's connection as the victim itself would send it again."""
    segments = [PathSegment(name=each.name, id=each.id) for each in connection.path.path_segments]
    path = Path(index=index, path_segments=segments)
    return type(connection)(id=segments[index].id, network_service="icmp", path=path, **fields)


async def test_a_token_in_the_victims_name_closes_nothing(attacker, victim, connection):
    url = attacker.target.urls["nsmgr"]
    for token in await lies(attacker, connection, url):
        with pytest.raises((Refused, NotFound)):
            await attacker.close(of_the_victim(connection), token=token, expires=seconds_from_now(600))
    assert await stands(victim, connection)


async def test_a_token_in_the_victims_name_changes_nothing(attacker, victim, connection):
    url = attacker.target.urls["nsmgr"]
    routes = IpContext(
        dst_routes=[Route(prefix="8.8.8.8/32")], src_ip_addrs=list(connection.context.ip_context.src_ip_addrs)
    )
    for token in await lies(attacker, connection, url):
        asked = of_the_victim(connection, context=ConnectionContext(ip_context=routes))
        with pytest.raises(Refused):
            await attacker.request(
                asked, attacker.kernel("vic0"), token=token, expires=seconds_from_now(600), files=[attacker.network]
            )
    assert await stands(victim, connection)


@pytest.mark.parametrize("component", ["forwarder", "endpoint"])
async def test_a_component_further_on_is_asked_past_the_manager(attacker, victim, connection, component):
    position = {"forwarder": 2, "endpoint": 3}[component]
    url = attacker.target.urls[component]
    server = (await attacker.peer(url)).spiffe_id
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    segments = connection.path.path_segments
    short = [
        PathSegment(name=attacker.workload, id="mine"),
        PathSegment(name=segments[position].name, id=segments[position].id),
    ]
    made_up = [
        PathSegment(
            name=each.name, id=each.id, token=attacker.token(sub=attacker.target.id_of("victim"), aud=[manager])
        )
        for each in segments[: position + 1]
    ]
    for path in (short, made_up):
        for subject in (attacker.spiffe_id, manager):
            asked = type(connection)(
                id=path[-2].id, network_service="icmp", path=Path(index=len(path) - 2, path_segments=path)
            )
            token = attacker.token(sub=subject, aud=[server])
            with pytest.raises((Refused, NotFound)):
                await attacker.close(asked, url=url, token=token, expires=seconds_from_now(600))
            with pytest.raises((Refused, InvalidRequest)):
                await attacker.request(
                    asked,
                    attacker.kernel(),
                    url=url,
                    token=token,
                    expires=seconds_from_now(600),
                    files=[attacker.network],
                )
    assert await stands(victim, connection)
    refreshed = await victim.request(connection, victim.kernel("vic0"), files=[victim.network])
    assert refreshed.context.ip_context.src_ip_addrs == connection.context.ip_context.src_ip_addrs


async def test_who_begins_inside_the_path_is_not_taken_for_who_began_it(attacker, victim, connection):
    """The caller's own segment comes second: before it, one that it signed in the victim's name."""
    url = attacker.target.urls["nsmgr"]
    manager = (await attacker.peer(url)).spiffe_id
    first, second = connection.path.path_segments[:2]
    forged = attacker.token(sub=attacker.target.id_of("victim"), aud=[attacker.spiffe_id])
    segments = [
        PathSegment(name=first.name, id=first.id, token=forged),
        PathSegment(name="attacker", id="between"),
        PathSegment(name=second.name, id=second.id),
    ]
    asked = type(connection)(id="between", network_service="icmp", path=Path(index=1, path_segments=segments))
    token = attacker.token(aud=[manager])
    with pytest.raises((Refused, NotFound)):
        await attacker.close(asked, token=token, expires=seconds_from_now(600))
    with pytest.raises(Refused):
        await attacker.request(
            asked, attacker.kernel("vic0"), token=token, expires=seconds_from_now(600), files=[attacker.network]
        )
    assert await stands(victim, connection)


@pytest.mark.parametrize("index", [1, 2, 3, 4, 1000, 2**31, 2**32 - 1])
async def test_an_index_elsewhere_in_the_path_is_no_way_in(attacker, victim, connection, index):
    asked = of_the_victim(connection)
    asked.path.index = index
    asked.id = connection.path.path_segments[index].id if index < 4 else "nothing"
    with suppress(Refused, InvalidRequest, NotFound):  # what is not there can be closed
        await attacker.close(asked)
    try:
        made = await attacker.request(asked, attacker.kernel("vic0"), files=[attacker.network])
    except (Refused, InvalidRequest):
        pass
    else:  # as one that passes connections on, it gets one of its own
        assert made.path.path_segments[index + 1].id not in {each.id for each in connection.path.path_segments}
        assert made.context.ip_context.src_ip_addrs != connection.context.ip_context.src_ip_addrs
        await attacker.close(made)
    assert await stands(victim, connection)


async def test_who_asks_for_a_new_start_of_the_victims_connection_begins_one_of_its_own(attacker, victim, connection):
    """A Request to reselect closes first what was established, in whose name it comes."""
    places = [("nsmgr", 0), ("forwarder", 1), ("endpoint", 2)]
    for component, index in places:
        url, made = attacker.target.urls[component], None
        asked = of_the_victim(connection, index, state=State.RESELECT_REQUESTED)
        with suppress(MeshError):
            made = await attacker.request(asked, attacker.kernel(), url=url, files=[attacker.network])
        assert await stands(victim, connection), component
        if made is not None:
            assert made.path.path_segments[index + 1].id not in {each.id for each in connection.path.path_segments}
            await attacker.close(made, url=url)
    refreshed = await victim.request(connection, victim.kernel("vic0"), files=[victim.network])
    assert refreshed.context.ip_context.src_ip_addrs == connection.context.ip_context.src_ip_addrs
    assert [each.id for each in refreshed.path.path_segments] == [each.id for each in connection.path.path_segments]


# --- registrations


@pytest.fixture
async def record(victim):
    await victim.register(service_record("of-the-victim"))
    made = await victim.register_socket(endpoint_record("endpoint-of-the-victim", "of-the-victim"))
    yield made
    await victim.unregister(made)
    await victim.unregister(service_record("of-the-victim"))


async def urls_of(victim, record):
    found = await victim.find(endpoint_record(record.name, "of-the-victim", url=""))
    return [each.network_service_endpoint.url for each in found]


async def paths_of_lies(attacker, url):
    """Token of the caller, and the path before: all signed with the attacker's key."""
    manager, subject = (await attacker.peer(url)).spiffe_id, attacker.target.id_of("victim")
    forged = attacker.token(sub=subject, aud=[attacker.spiffe_id])
    in_name = attacker.token(sub=subject, aud=[manager])
    own = attacker.token(aud=[manager])
    return [
        (in_name, RegistryPath()),
        (own, RegistryPath()),
        (in_name, RegistryPath(0, [in_name])),
        (own, RegistryPath(1, [forged, own])),
        (own, RegistryPath(1, [forged])),
        (in_name, RegistryPath(1, [forged, in_name])),
        (own, RegistryPath(2, [forged, forged, own])),
    ]


@pytest.mark.parametrize("where", ["nsmgr", "registry"])
async def test_a_token_in_the_victims_name_unregisters_nothing(attacker, victim, record, where):
    url = attacker.target.urls.get(where) or attacker.target.urls[f"{where} tcp"]
    known = await urls_of(victim, record)
    for token, path in await paths_of_lies(attacker, url):
        for what in (record, service_record("of-the-victim")):
            with pytest.raises((Refused, NotFound, InvalidRequest)):
                await attacker.unregister(what, url=url, token=token, expires=seconds_from_now(600), path=path)
    assert await urls_of(victim, record) == known


@pytest.mark.parametrize("where", ["nsmgr", "registry"])
async def test_a_token_in_the_victims_name_moves_no_endpoint(attacker, victim, record, where):
    url = attacker.target.urls.get(where) or attacker.target.urls[f"{where} tcp"]
    known = await urls_of(victim, record)
    moved = endpoint_record(record.name, "of-the-victim", url="tcp://203.0.113.66:6666")
    for token, path in await paths_of_lies(attacker, url):
        with pytest.raises((Refused, InvalidRequest)):
            await attacker.register(moved, url=url, token=token, expires=seconds_from_now(600), path=path)
    assert await urls_of(victim, record) == known


PATHS = [
    '{"Index":1e400,"PathSegments":null}',
    '{"Index":-1,"PathSegments":[{"token":"x"}]}',
    '{"Index":1.5,"PathSegments":[]}',
    '{"Index":true,"PathSegments":[{"token":"x"}]}',
    '{"Index":"1","PathSegments":[{"token":"x"}]}',
    '{"Index":NaN,"PathSegments":[]}',
    '{"Index":4294967295,"PathSegments":[]}',
    '{"Index":1,"PathSegments":{"0":{"token":"x"}}}',
    '{"Index":1,"PathSegments":[null,[],1]}',
    '{"Index":' + "9" * 5000 + "}",
    "[" * 3000,
    "{" * 3000,
    '{"Index":0,"index":1,"PathSegments":[]}',
    "",
    "x",
]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
async def test_a_path_of_no_shape_is_no_fault_of_the_manager(attacker, path):
    """Refused, or passed over: what is registered then is the caller's own."""
    try:
        await attacker.register(service_record("nothing"), path=path)
    except (Refused, InvalidRequest):
        return
    await attacker.unregister(service_record("nothing"))


# --- until when


def expires_of(connection):
    stamp = connection.path.path_segments[0].expires
    return stamp.seconds + stamp.nanos / 1e9


async def test_metadata_is_not_believed_beyond_the_token(attacker):
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    token = attacker.token(aud=[manager], exp=int(time.time()) + 60)
    made = await attacker.request(
        attacker.connection("for-ever"), attacker.kernel(), token=token, expires=FAR, files=[attacker.network]
    )
    await attacker.close(made)
    assert expires_of(made) <= time.time() + 61


ODD = [
    "Infinity",
    "-Infinity",
    "NaN",
    "1e400",
    "1" + "0" * 400,
    "253402300799",
    "-1",
    '"4102444800"',
    "true",
    "null",
    "[]",
    "{}",
    "1e308",
]


@pytest.mark.parametrize("exp", ODD, ids=[each[:12] for each in ODD])
async def test_a_token_that_never_ends_is_refused_or_cut(attacker, exp):
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    token = attacker.sign(f'{{"sub": "{attacker.spiffe_id}", "aud": ["{manager}"], "exp": {exp}}}')
    try:
        made = await attacker.request(
            attacker.connection("odd"), attacker.kernel(), token=token, expires=FAR, files=[attacker.network]
        )
    except (Refused, InvalidRequest):
        return
    await attacker.close(made)
    assert expires_of(made) <= time.time() + DAY


@pytest.mark.parametrize("exp", ODD, ids=[each[:12] for each in ODD])
async def test_a_registration_with_a_token_that_never_ends_is_refused_or_cut(attacker, exp):
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    token = attacker.sign(f'{{"sub": "{attacker.spiffe_id}", "aud": ["{manager}"], "exp": {exp}}}')
    record = endpoint_record("odd", "odd", url="tcp://198.51.100.8:5000")
    try:
        made = await attacker.register(record, token=token, expires=FAR)
    except (Refused, InvalidRequest):
        return
    await attacker.unregister(made)
    assert made.expiration_time.seconds <= time.time() + DAY


async def test_a_token_that_is_not_valid_yet_is_refused(attacker):
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    for not_before in (time.time() + 3600, "later", float("inf")):
        token = attacker.token(aud=[manager], nbf=not_before)
        with pytest.raises(Refused):
            await attacker.request(
                attacker.connection("early"), attacker.kernel(), token=token, files=[attacker.network]
            )


ODD_TOKENS = [
    "",
    ".",
    "..",
    "a.b.c",
    "e30.e30.",
    "\ud7ff" if False else "e30.bnVsbA.",
    "x" * 70_000,
    "eyJhbGciOiJub25lIn0.e30.",
]


@pytest.mark.parametrize("token", ODD_TOKENS, ids=range(len(ODD_TOKENS)))
async def test_what_is_no_token_is_refused_and_no_fault_of_the_manager(attacker, token):
    with pytest.raises(MeshError) as refusal:
        await attacker.request(attacker.connection("none"), attacker.kernel(), token=token, files=[attacker.network])
    assert type(refusal.value).__name__ != "Internal"


async def test_claims_of_odd_kinds_are_refused_and_no_fault_of_the_manager(attacker):
    manager = (await attacker.peer(attacker.target.urls["nsmgr"])).spiffe_id
    good = {"sub": attacker.spiffe_id, "aud": [manager], "exp": int(time.time()) + 60}
    for change in (
        {"sub": 1},
        {"sub": [attacker.spiffe_id]},
        {"sub": ""},
        {"aud": manager},
        {"aud": [[manager]]},
        {"aud": [{}]},
        {"sub": "x" * 9000},
    ):
        token = attacker.sign(json.dumps({**good, **change}))
        with pytest.raises((Refused, InvalidRequest)):  # the last one is too long to be looked at
            await attacker.request(
                attacker.connection("kinds"), attacker.kernel(), token=token, files=[attacker.network]
            )
