"""From a volume to its segmentation."""
