"""The page of a view in a real browser, used as a person would."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
import pytest_asyncio

from nsm.apis.connection import State as Liveness
from nsm.chains.model.causes import Cause
from nsm.chains.transport import SocketAccess
from nsm.view.server import application, serving
from tests.view.browser import browser
from tests.view.states import MANAGER, connection, small_mesh

pytestmark = pytest.mark.timeout(90)
SOON = 2.0
EVIL = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(tmp_path_factory):
    async with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@asynccontextmanager
async def shown(chromium, state, path="", **options):
    """A tab with the page of that state; at the end nothing in it may have failed."""
    async with serving(application(state), ["tcp://127.0.0.1:0"], access=SocketAccess()) as urls:
        page = await chromium.open(f"{urls[0].replace('tcp:', 'http:')}/{path}", **options)
        await page.until("document.querySelector('#states .chip')")
        yield page
        assert page.faults == []
        await page.goes_to("about:blank")


def down(state, number=0, sentence="the peer nsmgr-2 does not respond"):
    broken = connection(number, state=Liveness.DOWN)
    broken.path.path_segments[2].metrics.update(Cause("PeerLost", sentence, "start it again", "monitor").metrics())
    state.report(MANAGER, broken)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_wire_that_breaks_is_seen_with_hop_and_cause_and_again_when_it_is_mended(chromium):
    state = small_mesh(wires=3)
    async with shown(chromium, state, "#wires/till-1") as page:
        await page.until("document.querySelectorAll('.rows .row').length === 3")
        assert "till/nsm-1" in await page.text("#panel h2")
        down(state, 1)
        took = await page.until("document.querySelector('.rows .row .state').innerText === 'DOWN'", SOON)
        assert took < SOON
        assert "does not respond" in await page.text(".cause")
        assert "start it again" in await page.text(".cause .remedy")
        assert await page.text(".hop.first .name") == "nsmgr-2manager"
        assert "does not respond" in await page.text(".hop.first .why")
        assert await page.run("document.title") == "(1) Network Service Mesh"
        await page.until("document.querySelectorAll('#panel .events li').length")
        state.report(MANAGER, connection(1))
        await page.until("!document.querySelector('.cause') && !document.querySelector('.rows .down')", SOON)
        assert await page.run("document.title") == "Network Service Mesh"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_is_used_by_keys_and_what_is_shown_can_be_linked_to(chromium):
    state = small_mesh(wires=4)
    down(state, 2)
    async with shown(chromium, state) as page:
        await page.until("document.querySelectorAll('.rows .row').length === 4")
        await page.press("j")
        assert await page.run("location.hash") == "#wires/till-2"  # what is down comes first
        await page.press("j", "d")
        await page.until("document.querySelectorAll('.rows .row').length === 1")
        assert await page.run("location.hash") == "#wires/till-0?state=DOWN%2CHEALING%2CUNHEARD%2CPENDING"
        await page.press("Escape", "d", "/")
        assert await page.run("document.activeElement.id") == "search"
        await page.press(*"nsm-3")
        await page.until("document.querySelectorAll('.rows .row').length === 1")
        await page.press("Escape", "3")
        assert await page.run("location.hash") == "#services?q=nsm-3"
        await page.run("location.hash = '#wires/till-3?q=shop-7'")
        await page.until("document.querySelector('#panel h2')?.innerText === 'till/nsm-3'")
        assert await page.run("document.getElementById('search').value") == "shop-7"
        await page.press("t")
        first = await page.run("getComputedStyle(document.body).backgroundColor")
        await page.press("t")
        assert await page.run("getComputedStyle(document.body).backgroundColor") != first
        await page.press("?")
        assert await page.run("document.getElementById('keys').open")


@pytest.mark.asyncio(loop_scope="module")
async def test_every_tab_shows_its_part_and_a_click_opens_a_wire(chromium):
    state = small_mesh(wires=2)
    async with shown(chromium, state, "#topology") as page:
        await page.until("document.querySelector('.graph canvas')")
        await page.press("3")
        await page.until("document.querySelector('.card h2')?.innerText === 'shop@my.mesh'")
        assert "shop-7" in await page.text(".card")
        assert "site=a" in await page.text(".card")
        await page.press("4")
        assert "forwarder-1" in await page.text(".list")
        await page.press("5")
        assert "Time" in await page.text(".list thead")
        await page.press("1")
        await page.click(".rows .row:nth-child(2)")
        await page.until("document.querySelector('#panel h2')?.innerText === 'till/nsm-1'")
        await page.click(".close")
        assert await page.run("document.getElementById('panel').hidden")


@pytest.mark.asyncio(loop_scope="module")
async def test_names_of_the_mesh_cannot_inject_anything(chromium):
    state = small_mesh(wires=0)
    evil = connection(0, client=EVIL)
    evil.labels = {"app": EVIL}
    evil.network_service_endpoint_name = EVIL
    evil.path.path_segments[2].metrics.update(Cause("PeerLost", EVIL, EVIL, "monitor").metrics())
    evil.state = Liveness.DOWN
    state.report(MANAGER, evil)
    (wire,) = state.wires()
    async with shown(chromium, state, f"#wires/{quote(wire.id, safe='')}") as page:
        await page.until("document.querySelector('.cause')")
        for key in "123451":
            await page.press(key)
            await asyncio.sleep(0.05)
        assert await page.run("document.querySelectorAll('#content img, #panel img, main script').length") == 0
        assert await page.run("document.title") == "(1) Network Service Mesh"
        assert "onerror" in await page.text(".cause")
        inline = "new Promise(done => { const s = document.createElement('script'); s.text = 'window.ran = 1'; document.head.append(s); setTimeout(() => done(window.ran), 50); })"
        assert await page.run(inline) is None
        assert any("Content Security Policy" in each for each in page.faults)
        page.faults.clear()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_view_that_ends_is_shown_as_one_that_does_not_respond(chromium):
    state = small_mesh(wires=1)
    async with serving(application(state), ["tcp://127.0.0.1:0"], access=SocketAccess()) as urls:
        page = await chromium.open(urls[0].replace("tcp:", "http:"))
        await page.until("document.querySelectorAll('.rows .row').length === 1")
        assert await page.run("document.getElementById('notice').hidden")
    await page.until("!document.getElementById('notice').hidden", 5)
    assert "does not respond" in await page.text("#notice")
    await page.goes_to("about:blank")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_thousand_wires_are_read_by_scrolling_and_drawn_in_time(chromium):
    state = small_mesh(wires=0)
    for number in range(1000):
        state.report(MANAGER, connection(number, client=f"till-{number:04}"))
    async with shown(chromium, state) as page:
        await page.until("document.querySelector('.wires').getAttribute('aria-rowcount') === '1000'")
        assert await page.run("document.querySelectorAll('.rows .row').length") < 60
        await page.run("document.querySelector('.scroll').scrollTop = 1e6")
        await page.until("[...document.querySelectorAll('.rows .row')].at(-1).innerText.includes('till-0999')")
        redrawn = "(() => { const begun = performance.now(); dispatchEvent(new Event('hashchange')); return performance.now() - begun; })()"
        assert await page.run(redrawn) < 500
        await page.press("2")
        await page.until("document.querySelector('.graph canvas')")
        assert json.loads(await page.run("JSON.stringify(document.querySelector('.note').innerText)")) == ""
