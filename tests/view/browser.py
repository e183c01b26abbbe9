"""A Chromium without a screen, driven as a person would: keys, the mouse, and what is seen."""

import asyncio
import base64
import itertools
import json
import shutil
from contextlib import asynccontextmanager, suppress

import aiohttp

WORDS = [
    "--headless=new",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
CODES = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
STARTS_WITHIN = 30.0


class Page:
    """One tab. `faults` are errors of scripts and what the content security policy forbade."""

    def __init__(self, tell, session):
        self._tell, self._session = tell, session
        self.faults = []

    async def _call(self, method, **parameters):
        return await self._tell(method, parameters, self._session)

    def heard(self, method, parameters):
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.faults.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    async def run(self, expression):
        """The value of an expression in the page."""
        found = await self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def text(self, selector="body"):
        """What a person reads there."""
        return await self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText).join('\\n')"
        )

    async def until(self, expression, within=10.0):
        """Wait until an expression is true; returns the seconds that took."""
        begun = asyncio.get_running_loop().time()
        while not await self.run(f"!!({expression})"):
            assert asyncio.get_running_loop().time() < begun + within, f"{expression}: {(await self.text())[:800]}"
            await asyncio.sleep(0.02)
        return asyncio.get_running_loop().time() - begun

    async def press(self, *keys):
        for key in keys:
            about = {"key": key, "windowsVirtualKeyCode": CODES.get(key, ord(key[0].upper()))}
            text = {"text": "\r" if key == "Enter" else key} if key not in CODES or key == "Enter" else {}
            await self._call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            await self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def click(self, selector):
        """The middle of the first element that fits."""
        where = f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        x, y = await self.run(where)
        for kind in ("mousePressed", "mouseReleased"):
            await self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def goes_to(self, url):
        await self._call("Page.navigate", url=url)

    async def is_dark(self, dark):
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self._call("Emulation.setEmulatedMedia", features=features)

    async def picture(self, file):
        shown = await self._call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shown["data"]))


class Browser:
    def __init__(self, socket):
        self._socket, self._numbers, self._waiting, self._pages = socket, itertools.count(1), {}, {}

    async def _tell(self, method, parameters, session=None):
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        about = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        await self._socket.send_json(about)
        async with asyncio.timeout(20):
            return await answered

    async def listen(self):
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                answered = self._waiting.pop(told["id"])
                if "error" in told:
                    answered.set_exception(AssertionError(told["error"]))
                else:
                    answered.set_result(told["result"])
            elif (page := self._pages.get(told.get("sessionId"))) is not None:
                page.heard(told["method"], told["params"])

    async def open(self, url, size=(1280, 800)):
        """A new tab with that address."""
        target = await self._tell("Target.createTarget", {"url": "about:blank"})
        attached = await self._tell("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        session = attached["sessionId"]
        page = self._pages[session] = Page(self._tell, session)
        for domain in ("Page", "Runtime", "Log"):
            await self._tell(f"{domain}.enable", {}, session)
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        await self._tell("Emulation.setDeviceMetricsOverride", metrics, session)
        await page.goes_to(url)
        return page


@asynccontextmanager
async def browser(folder):
    """Run one until the end of the block; its files are in `folder`."""
    program = shutil.which("chromium")
    assert program, "there is no chromium: scripts/system-packages installs it on Debian"
    words = [program, *WORDS, f"--user-data-dir={folder}", "about:blank"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        async with asyncio.timeout(STARTS_WITHIN):
            while not (lines := _lines(folder / "DevToolsActivePort")):
                assert process.returncode is None, f"chromium ended with {process.returncode}"
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as session:
            url = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            async with session.ws_connect(url, max_msg_size=0) as socket:
                running = Browser(socket)
                listening = asyncio.ensure_future(running.listen())
                try:
                    yield running
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


def _lines(file):
    try:
        lines = file.read_text().split("\n")
    except FileNotFoundError:
        return []
    return lines if len(lines) == 2 else []
