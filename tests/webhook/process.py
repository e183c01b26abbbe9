"""The webhook as a process, beside an API server that is none."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys

from nsm.webhook.registration import CONFIGURATIONS
from tests.kube.stand_in import eventually

CONFIGURATION = f"{CONFIGURATIONS.path()}/nsm-webhook"
NAMESPACES = "/api/v1/namespaces"
SETTINGS = {
    "NSM_NAME": "nsm-webhook",
    "NSM_SERVICE_NAME": "webhook",
    "NSM_NAMESPACE": "nsm-system",
    "NSM_LISTEN_ON": "tcp://127.0.0.1:0",
    "NSM_WEBHOOK_MODE": "selfregister",
    "NSM_CONTAINER_IMAGES": "localhost/nsm/nsc:1",
    "NSM_INIT_CONTAINER_IMAGES": "localhost/nsm/nsc-init:1",
}


class Webhook:
    """A process, and what it logged."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self):
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))

    def told(self, event):
        return [line for line in self.lines if line["event"] == event]

    async def port(self):
        await eventually(lambda: self.told("serving"), 15)
        return int(self.told("serving")[0]["address"].rpartition(":")[2])

    async def end(self):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), 15)
        await self._reading
        return code


@contextlib.asynccontextmanager
async def webhook(api, tmp_path, **more):
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": api.url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    kubeconfig.write_text(json.dumps(config))
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), **SETTINGS, **more}
    command = [sys.executable, "-m", "nsm.chains", "webhook"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    started = Webhook(process)
    try:
        yield started
    finally:
        await started.end()


def bundle(api):
    return base64.b64decode(api.at(CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"]).decode()
