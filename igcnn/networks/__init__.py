"""The networks of the paper, by name: `build_network("resnet_igc", depth=20, L=24, M=2)`."""

from .registry import NETWORKS, Network, build_network

__all__ = ["NETWORKS", "Network", "build_network"]
