"""The admission webhook under load: a process of its own, HTTPS, pods that come at fixed moments, whatever waits."""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from nsm.chains import logs
from nsm.chains.transport.urls import Address
from nsm.webhook.admission import Admission
from nsm.webhook.certificate import Chain, ServerCertificate
from nsm.webhook.decision import Namespace
from nsm.webhook.images import images
from nsm.webhook.own_certificate import OwnCertificate, issue_certificate
from nsm.webhook.recipe import Recipe
from nsm.webhook.server import application, serving

RATE, SECONDS = 100, 10
"""Requests a second, and for how long."""
SERVICE, NAMESPACE = "webhook", "nsm-system"
_KEY = "networkservicemesh.io"
_WARM_UP = 50


class _Seen:
    """Namespaces that are all known."""

    async def get(self, name: str) -> Namespace:
        return Namespace(name, {}, {})

    ask = get


async def measure() -> list[tuple[str, list[float], str]]:
    """Milliseconds from the moment at which a request was to be sent until its answer was read."""
    made = issue_certificate(SERVICE, NAMESPACE, datetime.timedelta(days=1))
    context = ssl.create_default_context(cadata=made.authority)
    async with _webhook(made) as url, aiohttp.ClientSession() as session:

        async def ask(number: int, due: float) -> float:
            await asyncio.sleep(due - time.perf_counter())
            host = f"{SERVICE}.{NAMESPACE}.svc"
            async with session.post(url, json=_review(number), ssl=context, server_hostname=host) as answer:
                response = (await answer.json())["response"]
            if not response["allowed"] or "patch" not in response:
                raise RuntimeError(f"a pod was not injected into: {response}")
            return (time.perf_counter() - due) * 1000

        for number in range(_WARM_UP):
            await ask(number, time.perf_counter())
        begin = time.perf_counter()
        taken = await asyncio.gather(*(ask(number, begin + number / RATE) for number in range(RATE * SECONDS)))
    return [("webhook_100_per_s", list(taken), "ms")]


@asynccontextmanager
async def _webhook(made: OwnCertificate) -> AsyncIterator[str]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(made, theirs), daemon=True)
    process.start()
    try:
        yield f"https://127.0.0.1:{await asyncio.to_thread(ours.recv)}/mutate"
    finally:
        process.kill()
        process.join()


def _serve(made: OwnCertificate, pipe: Any) -> None:
    async def main() -> None:
        certificate = ServerCertificate(f"{SERVICE}.{NAMESPACE}.svc")
        certificate.show(Chain.read(made.pem))
        served = application(Admission(_recipe(), _Seen()), certificate.fault)
        async with serving(served, Address(host="127.0.0.1"), certificate.context) as port:
            pipe.send(port)
            await asyncio.get_running_loop().create_future()

    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        logs.set_up("webhook", "INFO", nowhere)  # written, and thrown away
        asyncio.new_event_loop().run_until_complete(main())


def _recipe() -> Recipe:
    return Recipe(
        annotation=_KEY,
        url_variable="NSM_NETWORK_SERVICES",
        images=images("localhost/nsm/nsc:1"),
        labels={"spiffe.io/spiffe-id": "true"},
        limits={"cpu": "200m", "memory": "80Mi"},
        requests={"cpu": "100m", "memory": "40Mi"},
        identity_driver="csi.spiffe.io",
        native=True,
    )


def _review(number: int) -> dict[str, Any]:
    """About a pod with four containers and the records of who wrote it: some 16 KiB."""
    variables = [{"name": f"VARIABLE_{each}", "value": "x" * 40} for each in range(30)]
    containers = [{"name": f"app-{each}", "image": "app:1", "env": variables} for each in range(4)]
    owned = {f"f:field-{each}": {"f:value": {}} for each in range(100)}
    metadata = {
        "generateName": "web-",
        "namespace": f"team-{number % 20}",
        "annotations": {_KEY: "kernel://first/nsm-1?app=web,kernel://second/nsm-2"},
        "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": owned}],
    }
    request = {
        "uid": f"{number}",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": metadata["namespace"],
        "object": {"kind": "Pod", "metadata": metadata, "spec": {"containers": containers}},
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
