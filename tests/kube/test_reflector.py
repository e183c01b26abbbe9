"""A reflector keeps up, whatever the API server does."""

import asyncio

import pytest

from nsm.kube import NAMESPACES, PODS, Reflector

from .stand_in import eventually, forbidden

PODS_OF_X = "/api/v1/namespaces/x/pods"


def names(reflector):
    return sorted(name for _, name in reflector.objects)


async def test_what_is_there_and_what_comes_is_known(server, api):
    server.put(f"{PODS_OF_X}/a")
    async with Reflector(api, PODS) as pods:
        assert not pods.is_synced
        await pods.synced()
        assert names(pods) == ["a"]
        server.put("/api/v1/namespaces/y/pods/b", labels={"app": "web"})
        await eventually(lambda: ("y", "b") in pods.objects)
        assert pods.objects["y", "b"]["metadata"]["labels"] == {"app": "web"}
        server.remove(f"{PODS_OF_X}/a")
        await eventually(lambda: names(pods) == ["b"])


async def test_only_its_namespace_and_its_kind_are_known(server, api):
    server.put(f"{PODS_OF_X}/a")
    server.put("/api/v1/namespaces/y/pods/b")
    server.put("/api/v1/namespaces/x/services/c")
    server.put("/api/v1/namespaces/z")
    async with Reflector(api, PODS, "x") as pods, Reflector(api, NAMESPACES) as namespaces:
        await asyncio.gather(pods.synced(), namespaces.synced())
        assert list(pods.objects) == [("x", "a")]
        assert list(namespaces.objects) == [("", "z")]


async def test_more_objects_than_one_answer_holds_are_all_known(server, api):
    for number in range(1203):
        server.put(f"{PODS_OF_X}/p{number}")
    async with Reflector(api, PODS, "x") as pods:
        await pods.synced()
        assert len(pods.objects) == 1203
    assert sum("limit=500" in request for request in server.requests) == 3


async def test_changes_tell_before_and_after_in_order(server, api):
    heard = []
    async with Reflector(api, PODS) as pods:
        pods.on_change(heard.append)
        await pods.synced()
        server.put(f"{PODS_OF_X}/a", spec=1)
        server.put(f"{PODS_OF_X}/a", spec=2)
        server.remove(f"{PODS_OF_X}/a")
        await eventually(lambda: len(heard) == 3)
    specs = [[state and state["spec"] for state in (change.before, change.now)] for change in heard]
    assert specs == [[None, 1], [1, 2], [2, None]]
    assert {change.key for change in heard} == {("x", "a")}


async def test_who_does_not_want_to_hear_any_more_hears_nothing(server, api):
    heard = []
    async with Reflector(api, PODS) as pods:
        await pods.synced()
        pods.on_change(heard.append)()
        server.put(f"{PODS_OF_X}/a")
        await eventually(lambda: pods.objects)
    assert heard == []


async def test_a_slow_reader_gets_the_last_state_of_each_object(server, api):
    server.put(f"{PODS_OF_X}/a", spec=1)
    async with Reflector(api, PODS) as pods:
        await pods.synced()
        changes = pods.changes()
        first = await anext(changes)
        assert (first.before, first.now["spec"]) == (None, 1)
        reading = asyncio.ensure_future(anext(changes))
        server.put(f"{PODS_OF_X}/a", spec=2)
        assert (await reading).now["spec"] == 2
        server.put(f"{PODS_OF_X}/a", spec=3)
        server.put(f"{PODS_OF_X}/a", spec=4)
        server.put(f"{PODS_OF_X}/short")
        server.remove(f"{PODS_OF_X}/short")
        server.put(f"{PODS_OF_X}/last")
        await eventually(lambda: ("x", "last") in pods.objects)
        one, other = await anext(changes), await anext(changes)
        assert (one.before["spec"], one.now["spec"], other.key[1]) == (2, 4, "last")
        await changes.aclose()


async def test_a_cut_connection_loses_nothing_and_lists_nothing(server, api):
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: server.watching)
        server.drop()
        await eventually(lambda: not server.watching)
        server.put(f"{PODS_OF_X}/meanwhile")
        await eventually(lambda: pods.objects)
        assert pods.trouble is None
    lists = [request for request in server.requests if "limit=500" in request]
    assert len(lists) == 1


async def test_after_a_bookmark_a_forgotten_past_does_not_matter(server, api):
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: server.watching)
        server.forget()
        server.bookmark()
        server.put(f"{PODS_OF_X}/a")
        await eventually(lambda: pods.objects)
        server.drop()
        server.put(f"{PODS_OF_X}/b")
        await eventually(lambda: len(pods.objects) == 2)
    lists = [request for request in server.requests if "limit=500" in request]
    assert len(lists) == 1


@pytest.mark.parametrize("how", ["answer", "event"])
async def test_a_version_that_is_gone_means_a_list_and_tells_what_went(server, api, how):
    server.put(f"{PODS_OF_X}/stays")
    server.put(f"{PODS_OF_X}/goes")
    heard = []
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: server.watching)
        pods.on_change(heard.append)
        if how == "event":
            server.say({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
        else:
            server.drop()
        server._watchers.clear()
        server.remove(f"{PODS_OF_X}/goes")
        server.put(f"{PODS_OF_X}/new")
        server.forget()
        await eventually(lambda: names(pods) == ["new", "stays"])
        await eventually(lambda: server.watching)
    assert [(change.key[1], change.now is None) for change in heard] == [("goes", True), ("new", False)]


async def test_a_server_that_is_down_is_waited_for_and_what_was_known_stays(server, api):
    server.put(f"{PODS_OF_X}/a")
    async with Reflector(api, PODS) as pods:
        await pods.synced()
        await server.stop()
        await eventually(lambda: pods.trouble is not None)
        assert "cannot watch pods in all namespaces: the API server cannot be reached" in str(pods.trouble)
        assert names(pods) == ["a"]
        await server.start()
        server.put(f"{PODS_OF_X}/b")
        await eventually(lambda: names(pods) == ["a", "b"])
        assert pods.trouble is None


async def test_a_server_that_is_restored_from_a_backup_is_believed(server, api):
    backup = int(server.put(f"{PODS_OF_X}/a", spec=1)["metadata"]["resourceVersion"])
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: server.watching)
        for number in range(20):
            server.put(f"{PODS_OF_X}/a", spec=number)
        server.put(f"{PODS_OF_X}/never")
        await eventually(lambda: names(pods) == ["a", "never"])
        await server.stop()
        server.restore(backup)
        await server.start()
        server.put(f"{PODS_OF_X}/since")
        await eventually(lambda: names(pods) == ["a", "since"])
        assert pods.objects["x", "a"]["spec"] == 1
        server.put(f"{PODS_OF_X}/next")
        await eventually(lambda: names(pods) == ["a", "next", "since"])


async def test_a_server_that_comes_later_is_waited_for(server, api):
    await server.stop()
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: pods.trouble is not None)
        await server.start()
        await asyncio.wait_for(pods.synced(), 5)


async def test_a_permission_that_is_granted_later_is_waited_for(server, api):
    server.refuse = forbidden
    async with Reflector(api, PODS, "x") as pods:
        await eventually(lambda: pods.trouble is not None)
        assert str(pods.trouble) == (
            "system:serviceaccount:nsm-system:registry may not list pods in namespace 'x': "
            "grant it the verb 'list' on pods by a Role"
        )
        server.refuse = None
        await asyncio.wait_for(pods.synced(), 5)


async def test_a_refused_watch_names_its_permission_too(server, api):
    server.refuse = lambda request: forbidden(request) if request.query.get("watch") else None
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: pods.trouble is not None)
        assert "may not watch pods in all namespaces: grant it the verb 'watch' on pods by a ClusterRole" in str(
            pods.trouble
        )


async def test_a_server_that_ends_each_watch_at_once_is_not_asked_in_a_tight_loop(server, api):
    async with Reflector(api, PODS) as pods:
        await pods.synced()
        for _ in range(50):
            server.drop()
            await asyncio.sleep(0.01)
    assert sum("watch=" in request for request in server.requests) < 6


async def test_odd_characters_in_an_object_do_not_break_its_line(server, api):
    async with Reflector(api, PODS) as pods:
        await eventually(lambda: server.watching)
        server.put(f"{PODS_OF_X}/a", spec="one\u0085two\u2028three\x1cfour")
        await eventually(lambda: pods.objects)
        assert pods.objects["x", "a"]["spec"] == "one\u0085two\u2028three\x1cfour"


async def test_a_reader_that_fails_does_not_end_the_reflector(server, api):
    failures = []

    def fail_once(change):
        if not failures:
            failures.append(change)
            raise KeyError("defect")

    async with Reflector(api, PODS) as pods:
        await pods.synced()
        pods.on_change(fail_once)
        await eventually(lambda: server.watching)
        server.put(f"{PODS_OF_X}/a")
        await eventually(lambda: failures)
        server.put(f"{PODS_OF_X}/b")
        await eventually(lambda: names(pods) == ["a", "b"])


async def test_a_reader_that_fails_keeps_no_change_from_the_others(server, api):
    heard = []

    def fail(change):
        raise KeyError("defect")

    server.put(f"{PODS_OF_X}/listed")
    async with Reflector(api, PODS) as pods:
        pods.on_change(fail)
        pods.on_change(heard.append)
        await eventually(lambda: server.watching)
        server.put(f"{PODS_OF_X}/watched")
        await eventually(lambda: len(pods.objects) == 2)
    assert [change.key[1] for change in heard] == ["listed", "watched"]


async def test_leaving_ends_the_watch(server, api):
    async with Reflector(api, PODS):
        await eventually(lambda: server.watching)
    await eventually(lambda: not server.watching)


async def test_selectors_go_with_the_list_and_with_the_watch(server, api):
    async with Reflector(api, PODS, "x", labels="app=web", fields="spec.nodeName=n1"):
        await eventually(lambda: server.watching)
    assert len(server.requests) == 2
    for request in server.requests:
        assert "labelSelector=app%3Dweb" in request
        assert "fieldSelector=spec.nodeName%3Dn1" in request


async def test_managed_fields_are_left_out(server, api):
    made = server.put(f"{PODS_OF_X}/a")
    made["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    async with Reflector(api, PODS) as pods:
        await pods.synced()
        assert "managedFields" not in pods.objects["x", "a"]["metadata"]
