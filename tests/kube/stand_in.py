"""A small API server on loopback: objects with versions, list in pages, watch with bookmarks, and faults on demand."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

from aiohttp import web


class StandIn:
    """Speaks enough of the API for any resource. What a test does to it, a real server does to us sooner or later."""

    def __init__(self):
        self.url = ""
        self.requests: list[str] = []
        """`GET /path?query` of each request."""
        self.tokens: list[str] = []
        """What each request had in its Authorization header."""
        self.refuse = None
        """Called with each request; a `Status` that it returns is the answer."""
        self.delay = 0.0
        """Seconds that each answer takes."""
        self._objects: dict[str, dict] = {}
        self.minor = "34"
        """Of the version that it says to be: 1.34."""
        self._version, self._oldest = 0, 0
        self._history: list[tuple[int, str, str, dict]] = []
        self._watchers: set[asyncio.Queue] = set()
        self._runner = None
        self._port = 0

    # what a test does

    def put(self, path: str, **content) -> dict:
        """Write an object as somebody else would; `path` is the whole one, as `/api/v1/namespaces/x/pods/a`."""
        collection, name = path.rsplit("/", 1)
        parts = collection.split("/")
        namespace = {"namespace": parts[parts.index("namespaces") + 1]} if "namespaces" in parts[:-1] else {}
        kind = "MODIFIED" if path in self._objects else "ADDED"
        labels = content.pop("labels", {})
        uid = self._objects.get(path, {}).get("metadata", {}).get("uid", f"uid-{self._version + 1}")
        metadata = {"name": name, **namespace, "uid": uid, "labels": labels}
        return self._store(kind, path, {"metadata": metadata, **content})

    def remove(self, path: str) -> None:
        self._store("DELETED", path, self._objects[path])

    def at(self, path: str) -> dict:
        return self._objects[path]

    def paths(self) -> list[str]:
        return sorted(self._objects)

    def forget(self) -> None:
        """Compact: versions before this one are gone."""
        self._version += 1
        self._oldest = self._version
        self._history.clear()

    def restore(self, version: int) -> None:
        """Go back to what was there at that version, as an etcd that is restored from a backup."""
        self._history = [event for event in self._history if event[0] <= version]
        self._objects = {}
        for _, kind, path, content in self._history:
            if kind == "DELETED":
                del self._objects[path]
            else:
                self._objects[path] = content
        self._version = version

    def bookmark(self) -> None:
        """Tell watchers the newest version, as the real one does each minute."""
        self._version += 1
        for watcher in self._watchers:
            watcher.put_nowait(("BOOKMARK", "", {"metadata": {"resourceVersion": str(self._version)}}))

    def say(self, status: dict) -> None:
        """End every watch with an error event."""
        for watcher in self._watchers:
            watcher.put_nowait(("ERROR", "", status))

    def drop(self) -> None:
        """Cut the connection of every watch."""
        for watcher in self._watchers:
            watcher.put_nowait(None)

    @property
    def watching(self) -> int:
        return len(self._watchers)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        self.drop()
        await self._runner.cleanup()

    # what it answers

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        self.tokens.append(request.headers.get("Authorization", ""))
        await asyncio.sleep(self.delay)
        if self.refuse and (status := self.refuse(request)) is not None:
            return web.json_response(status, status=status["code"])
        if request.query.get("watch") == "true":
            return await self._watch(request)
        body = await request.json() if request.body_exists else None
        handler = getattr(self, f"_{request.method.lower()}")
        try:
            return handler(request.path, request.query, body)
        except _Refuse as refused:
            return web.json_response(refused.status, status=refused.status["code"])

    def _get(self, path, query, _body):
        if path == "/version":
            return web.json_response({"gitVersion": f"v1.{self.minor}.4", "major": "1", "minor": self.minor})
        if path in self._objects:
            return web.json_response(self._objects[path])
        if self._is_collection(path):
            return self._list(path, query)
        raise _Refuse(404, "NotFound", f"{path.rsplit('/', 1)[-1]!r} not found")

    def _list(self, path, query):
        paths = [p for p in sorted(self._objects) if _within(p, path)]
        start, limit = int(query.get("continue", 0)), int(query.get("limit", len(paths) or 1))
        page = paths[start : start + limit]
        metadata = {"resourceVersion": str(self._version)}
        if start + limit < len(paths):
            metadata["continue"] = str(start + limit)
        return web.json_response({"metadata": metadata, "items": [self._objects[p] for p in page]})

    def _post(self, path, _query, body):
        full = f"{path}/{body['metadata']['name']}"
        if full in self._objects:
            raise _Refuse(409, "AlreadyExists", f"{body['metadata']['name']!r} already exists")
        content = {k: v for k, v in body.items() if k != "metadata"}
        return web.json_response(self.put(full, **content, labels=body["metadata"].get("labels", {})), status=201)

    def _put(self, path, _query, body):
        held = self._found(path)
        if (
            body["metadata"].get("resourceVersion", held["metadata"]["resourceVersion"])
            != held["metadata"]["resourceVersion"]
        ):
            raise _Refuse(409, "Conflict", "the object has been modified")
        content = {k: v for k, v in body.items() if k != "metadata"}
        return web.json_response(self.put(path, **content, labels=body["metadata"].get("labels", {})))

    def _patch(self, path, _query, body):
        return web.json_response(self.put(path, **_merged(self._found(path), body)))

    def _delete(self, path, _query, body):
        held = self._found(path)["metadata"]
        wanted = (body or {}).get("preconditions", {})
        if any(held[name] != value for name, value in wanted.items()):
            raise _Refuse(409, "Conflict", "the precondition does not hold")
        self.remove(path)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _watch(self, request):
        since = int(request.query["resourceVersion"])
        if since < self._oldest:
            return web.json_response(_status(410, "Expired", "too old resource version"), status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        queue = asyncio.Queue()
        for version, kind, path, content in self._history:
            if version > since:
                queue.put_nowait((kind, path, content))
        self._watchers.add(queue)
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while (event := await queue.get()) is not None:
                    kind, path, content = event
                    if path and int(content["metadata"]["resourceVersion"]) <= since:
                        continue  # whoever asks from the future hears nothing until then
                    if not path or _within(path, request.path):
                        line = json.dumps({"type": kind, "object": content}, ensure_ascii=False).encode() + b"\n"
                        await response.write(line[:20])  # in two pieces, as a network may
                        await response.write(line[20:])
                if request.transport is not None:
                    request.transport.abort()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watchers.discard(queue)
        return response

    def _store(self, kind, path, content):
        self._version += 1
        content = {**content, "metadata": {**content["metadata"], "resourceVersion": str(self._version)}}
        if kind == "DELETED":
            del self._objects[path]
        else:
            self._objects[path] = content
        self._history.append((self._version, kind, path, content))
        for watcher in self._watchers:
            watcher.put_nowait((kind, path, content))
        return content

    def _found(self, path):
        if path not in self._objects:
            raise _Refuse(404, "NotFound", f"{path.rsplit('/', 1)[-1]!r} not found")
        return self._objects[path]

    def _is_collection(self, path):
        parts = path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        return len(parts) == 1 or (parts[0] == "namespaces" and len(parts) == 3)


class _Refuse(Exception):
    def __init__(self, code, reason, message):
        self.status = _status(code, reason, message)


def _status(code, reason, message):
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def forbidden(request: web.Request) -> dict:
    """What RBAC says where nothing is granted."""
    parts = request.path.strip("/").split("/")
    verb = "watch" if request.query.get("watch") else {"GET": "list", "POST": "create", "PUT": "update"}[request.method]
    where = f'in the namespace "{parts[-2]}"' if "namespaces" in parts else "at the cluster scope"
    said = f'{parts[-1]} is forbidden: User "system:serviceaccount:nsm-system:registry" cannot {verb} resource "{parts[-1]}" in API group "" {where}'
    return _status(403, "Forbidden", said)


def _within(path: str, collection: str) -> bool:
    """Whether the object at `path` is one of `collection`, which may be that of all namespaces."""
    parent, _, _ = path.rpartition("/")
    if parent == collection:
        return True
    before, _, plural = collection.rpartition("/")
    return parent.startswith(f"{before}/namespaces/") and parent.endswith(f"/{plural}")


def _merged(held, patch):
    result = {k: v for k, v in held.items() if k != "metadata"}
    for name, value in patch.items():
        if name != "metadata":
            result[name] = {**held.get(name, {}), **value} if isinstance(value, dict) else value
    result["labels"] = {**held["metadata"]["labels"], **patch.get("metadata", {}).get("labels", {})}
    return result


@asynccontextmanager
async def stand_in():
    server = StandIn()
    await server.start()
    try:
        yield server
    finally:
        with suppress(Exception):
            await server.stop()


async def eventually(condition, seconds: float = 5.0) -> None:
    """Wait until `condition()` holds; what is awaited here comes over a socket."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
