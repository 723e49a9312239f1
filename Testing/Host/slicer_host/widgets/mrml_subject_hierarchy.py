"""Look-alike of the tree of subjects."""

from slicer_host.look_alikes import look_alike
from slicer_host.pythonqt import QtWidgets


@look_alike()
class qMRMLSubjectHierarchyTreeView(QtWidgets.QTreeView):
    """The type alone, which Slicer's parameter node wrapper compares others with; it shows nothing."""
