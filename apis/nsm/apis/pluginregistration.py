"""How the kubelet gets to know a plugin."""

from nsm.apis._generated.pluginregistration import (
    InfoRequest,
    PluginInfo,
    RegistrationStatus,
    RegistrationStatusResponse,
    RegistrationStub,
)

__all__ = ["InfoRequest", "PluginInfo", "RegistrationStatus", "RegistrationStatusResponse", "RegistrationStub"]
