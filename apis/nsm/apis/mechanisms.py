"""The names of mechanisms and of their parameters. All parameter values are strings."""

from typing import Final

# classes
LOCAL: Final = "LOCAL"
REMOTE: Final = "REMOTE"

# types
KERNEL: Final = "KERNEL"
MEMIF: Final = "MEMIF"
VFIO: Final = "VFIO"
VXLAN: Final = "VXLAN"
WIREGUARD: Final = "WIREGUARD"
IPSEC: Final = "IPSEC"
VLAN: Final = "VLAN"
SRV6: Final = "SRV6"
NOOP: Final = "NOOP"
TYPES: Final = frozenset({KERNEL, MEMIF, VFIO, VXLAN, WIREGUARD, IPSEC, VLAN, SRV6, NOOP})

# parameters that several types share
SRC_IP: Final = "src_ip"
DST_IP: Final = "dst_ip"
SRC_PORT: Final = "src_port"
DST_PORT: Final = "dst_port"
SRC_ORIGINAL_IP: Final = "orig_src_ip"
DST_ORIGINAL_IP: Final = "orig_dst_ip"
MTU: Final = "MTU"
INODE_URL: Final = "inodeURL"
"""A network namespace (KERNEL) or the namespace of a socket's owner (MEMIF): `file:///proc/1/ns/net`, `inode://4/99`."""
NETNS_INODE: Final = "netnsInode"
INTERFACE_NAME: Final = "name"
"""At most 15 bytes."""
PCI_ADDRESS: Final = "pciAddress"
DEVICE_TOKEN_ID: Final = "tokenID"  # noqa: S105 - a name

# KERNEL
SUPPORTS_VLAN: Final = "supportsVlan"
VLAN_TAG: Final = "vlan"
ROUTE_LOCAL_NET: Final = "routeLocalNet"
IPTABLES_NAT_TEMPLATE: Final = "IPTables4NatTemplate"
BARE: Final = "bare"
"""`true`: the interface gets no addresses and no routes. Its holder passes packets on and answers none itself."""
JOINT: Final = "joint"
"""What a bare interface becomes a part of when it is made: the bridge `br-…` of its holder, or the number of the
routing table in which a default route leads to it."""

# MEMIF
SOCKET_FILE: Final = "socketfile"

# VFIO
CGROUP_DIR: Final = "cgroupDir"
IOMMU_GROUP: Final = "iommuGroup"
VFIO_MAJOR: Final = "vfioMajor"
VFIO_MINOR: Final = "vfioMinor"
DEVICE_MAJOR: Final = "deviceMajor"
DEVICE_MINOR: Final = "deviceMinor"

# VXLAN
VNI: Final = "vni"
VXLAN_DEFAULT_PORT: Final = 4789

# WIREGUARD and IPSEC
SRC_PUBLIC_KEY: Final = "src_public_key"
DST_PUBLIC_KEY: Final = "dst_public_key"
WIREGUARD_DEFAULT_PORT: Final = 51820
IPSEC_DEFAULT_PORT: Final = 4500

# VLAN
VLAN_ID: Final = "vlan-id"

# SRV6
SRC_HOST_IP: Final = "src_host_ip"
DST_HOST_IP: Final = "dst_host_ip"
SRC_BSID: Final = "src_bsid"
DST_BSID: Final = "dst_bsid"
SRC_LOCAL_SID: Final = "src_localsid"
DST_LOCAL_SID: Final = "dst_localsid"
SRC_HOST_LOCAL_SID: Final = "src_host_localsid"
DST_HOST_LOCAL_SID: Final = "dst_host_localsid"
SRC_HARDWARE_ADDRESS: Final = "src_hw_addr"
DST_HARDWARE_ADDRESS: Final = "dst_hw_addr"
