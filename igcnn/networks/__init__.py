"""Networks by name: `build_network("resnet_igc", depth=20, L=24, M=2)`, and one's own."""

from .registry import NETWORKS, Family, Network, build_network, register_network

__all__ = ["NETWORKS", "Family", "Network", "build_network", "register_network"]
