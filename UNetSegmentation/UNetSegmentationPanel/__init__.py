"""The panel of UNetSegmentation; a sub-package, since Slicer tries to load each file in its folder as a module."""
