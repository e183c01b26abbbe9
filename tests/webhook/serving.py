"""A webhook's server on loopback, and a client that trusts it as an API server would."""

import contextlib
import datetime
import ssl

import aiohttp

from nsm.chains.transport.urls import Address
from nsm.webhook.admission import Admission
from nsm.webhook.certificate import ServerCertificate
from nsm.webhook.own_certificate import issue_certificate
from nsm.webhook.server import application, serving
from tests.webhook.reviews import Known, recipe

HOST = "webhook.nsm-system.svc"
DAY = datetime.timedelta(days=1)


def made(lifetime=DAY, service="webhook"):
    return issue_certificate(service, "nsm-system", lifetime)


@contextlib.asynccontextmanager
async def server(*, certificate=None, namespaces=None, limits=None, **more):
    """Gives the port and the certificate that is shown."""
    certificate = certificate or ServerCertificate(HOST)
    admission = Admission(recipe(**more), Known({"default": {}} if namespaces is None else namespaces))
    served = application(admission, certificate.fault)
    async with serving(served, Address(host="127.0.0.1"), certificate.context, limits) as port:
        yield port, certificate


class Caller:
    """Calls by the service's name, with the authorities of the configuration."""

    def __init__(self, port, authority):
        self._base = f"https://127.0.0.1:{port}"
        self._context = ssl.create_default_context(cadata=authority)
        self._session = aiohttp.ClientSession()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._session.close()

    async def get(self, path):
        async with self._session.get(self._base + path, ssl=self._context, server_hostname=HOST) as answer:
            return answer.status, await answer.text()

    async def post(self, path, **body):
        async with self._session.post(self._base + path, ssl=self._context, server_hostname=HOST, **body) as answer:
            return answer.status, await (answer.json() if answer.status == 200 else answer.text())
