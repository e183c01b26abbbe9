"""The VPP dataplane: wires through FD.io's Vector Packet Processor, configured by its binary API."""
