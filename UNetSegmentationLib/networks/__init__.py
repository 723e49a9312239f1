"""Segmentation networks, one file each."""

from .contract import NETWORKS, NetworkConfig, SegmentationNetwork, build_network

__all__ = ["NETWORKS", "NetworkConfig", "SegmentationNetwork", "build_network"]
