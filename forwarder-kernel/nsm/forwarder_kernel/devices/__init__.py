"""The devices that wires are made of: a class for each kind."""

from .device import Device
from .macvlan import Macvlan
from .veth import Veth
from .vxlan import VxlanDevice
from .wireguard import KernelWireguard, UserWireguard

__all__ = ["Device", "KernelWireguard", "Macvlan", "UserWireguard", "Veth", "VxlanDevice"]
