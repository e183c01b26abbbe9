"""`nsm webhook`: adds clients to the pods of annotated workloads."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

from nsm.chains.component import run_plain, unless_set
from nsm.chains.core import Backoff, MeshError, Tasks
from nsm.chains.identity.source import identity_from
from nsm.chains.logs import log
from nsm.chains.metrics import Read, also
from nsm.chains.transport.urls import parse_address
from nsm.kube import NAMESPACES, Api, Reflector, connect

from .admission import Admission
from .certificate import ServerCertificate
from .config import AUTO, NATIVE, SELF_REGISTER, WebhookConfig
from .configuration import configuration
from .figures import figures
from .namespaces import NamespaceIndex, keep_labels
from .recipe import Recipe
from .registration import Registration
from .renewal import Renewal
from .server import application, serving
from .sources import Files, OwnAuthority, show_svid
from .version import Version


def main(arguments: list[str]) -> int:
    """Injects clients into the pods of annotated workloads, as a Kubernetes admission webhook."""
    return run_plain("webhook", WebhookConfig, _serve, arguments)


async def _serve(config: WebhookConfig, stopping: asyncio.Event) -> None:
    address = parse_address(config.listen_on)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connect())
        version = await unless_set(stopping, _version(api))
        recipe = config.recipe(
            native=config.sidecars == NATIVE or (config.sidecars == AUTO and version.has_native_sidecars)
        )
        seen = await stack.enter_async_context(Reflector(api, NAMESPACES))
        certificate = ServerCertificate(config.host)
        renewal = await unless_set(stopping, _renewal(config, api, version, recipe, certificate, stack))

        def fault() -> str:
            unknown = (
                "" if seen.is_synced else f"the namespaces are not known yet: {seen.trouble or 'they are being listed'}"
            )
            return certificate.fault() or (renewal.fault if renewal else "") or unknown

        admission = Admission(recipe, NamespaceIndex(api, seen))
        stack.enter_context(also(_figures(admission, certificate, renewal)))
        served = application(admission, fault, config.limits)
        port = await stack.enter_async_context(serving(served, address, certificate.context, config.limits))
        if renewal is not None:
            stack.push_async_callback(renewal.withdraw)  # before the server stops, so that it is not called any more
        tasks = await stack.enter_async_context(Tasks("webhook"))  # last: they end first
        tasks.spawn(keep_labels(api, seen, recipe), name="namespace labels")
        if renewal is not None:
            tasks.spawn(renewal.run(), name="certificate")
        log.info(
            "serving", address=str(replace(address, port=port)), kubernetes=str(version), native_sidecars=recipe.native
        )
        await stopping.wait()


def _figures(admission: Admission, certificate: ServerCertificate, renewal: Renewal | None) -> Read:
    """What it has to tell beyond what every component has."""
    return figures(
        admission.counts,
        lambda: certificate.expires,
        lambda: renewal.is_registered if renewal is not None else None,
    )


async def _version(api: Api) -> Version:
    """The cluster's version; waits for the API server."""
    waits = Backoff()
    while True:
        try:
            return Version.of(await api.version())
        except (MeshError, ValueError) as error:
            log.warning("cannot get the version of the API server yet", server=api.server, error=str(error))
        await asyncio.sleep(waits.next())


async def _renewal(
    config: WebhookConfig,
    api: Api,
    version: Version,
    recipe: Recipe,
    certificate: ServerCertificate,
    stack: AsyncExitStack,
) -> Renewal | None:
    """The renewal of the certificate; None if the Workload API does it. Files take precedence over any mode."""
    registration = None
    if config.webhook_mode == SELF_REGISTER:
        registration = _registration(config, api, version, recipe)
    if config.reads_files:
        paths = config.cert_file_path, config.key_file_path, config.ca_bundle_file_path
        return Renewal(Files(certificate, *paths), registration)
    if registration is not None:
        made = OwnAuthority(certificate, config.service_name, config.namespace, config.certificate_lifetime)
        return Renewal(made, registration)
    source = identity_from(config.workload_api, token_lifetime=config.max_token_lifetime)
    show_svid(certificate, await stack.enter_async_context(source))
    return None


def _registration(config: WebhookConfig, api: Api, version: Version, recipe: Recipe) -> Registration:
    if not version.has_match_conditions:
        log.warning("every pod of the cluster is sent to this webhook: match conditions need Kubernetes 1.28")

    def build(bundle: str) -> dict[str, object]:
        return configuration(
            config.name,
            config.service_name,
            config.namespace,
            recipe,
            bundle=bundle,
            has_conditions=version.has_match_conditions,
        )

    return Registration(api, build, config.namespace)
