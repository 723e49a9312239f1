"""The panel of the UNetSegmentation module, in a sub-package: Slicer tries every file beside the module as a module."""
