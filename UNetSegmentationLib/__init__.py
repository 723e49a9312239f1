"""Networks of the U-Net family for volumetric segmentation: library, worker process and command line.

Importing this package costs nothing: torch is loaded by the modules of layer 1 and above only.
"""

__version__ = "0.1.0"
