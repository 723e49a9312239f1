"""Look-alikes of the segments table and of the button that shows segments in 3D."""

import slicer

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets
from slicer_host.widgets.ctk_buttons import ctkMenuButton
from slicer_host.widgets.mrml_widget import Observers, qMRMLWidget

_VISIBLE, _COLOR, _OPACITY, _STATUS, _NAME = range(5)
_STATUS_NAMES = ("Not started", "In progress", "Completed", "Flagged")
_SEGMENT_EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified")
_COLUMN_WIDTHS = {_VISIBLE: 28, _COLOR: 32, _OPACITY: 62, _STATUS: 88}


def _read_only_item(text=""):
    item = QtWidgets.QTableWidgetItem(text)
    item.setFlags(item.flags() & ~QtCore.Qt.ItemIsEditable)
    return item


@look_alike(
    signals={
        "mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged",
        "selectionChanged(QItemSelection,QItemSelection)": "selectionChanged",
    }
)
class qMRMLSegmentsTableView(qMRMLWidget):
    """A table of the segments of a segmentation: visibility, colour, opacity, status and name."""

    selectionChanged = QtCore.Signal(QtCore.QItemSelection, QtCore.QItemSelection)
    segmentAboutToBeModified = QtCore.Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._segmentation, self._filling = None, False
        self._hidden_ids: tuple[str, ...] = ()
        self._hidden_statuses: set[int] = set()
        self._observers = Observers(self)
        self._table = self._new_table()
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.itemChanged.connect(self._on_item_changed)
        self._table.cellDoubleClicked.connect(self._on_double_clicked)
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)
        self._show_columns()

    def _new_table(self):
        table = QtWidgets.QTableWidget(0, 5, self)
        table.setObjectName("SegmentsTable")
        table.setHorizontalHeaderLabels(["", "", "Opacity", "Status", "Name"])
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setMinimumSectionSize(20)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(24)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.setMinimumHeight(110)
        for column, width in _COLUMN_WIDTHS.items():
            table.setColumnWidth(column, width)
        return table

    selectionMode = stored_property(int(QtWidgets.QAbstractItemView.ExtendedSelection), int, changed="_show_columns")
    headerVisible = stored_property(True, bool, changed="_show_columns")
    visibilityColumnVisible = stored_property(True, bool, changed="_show_columns")
    colorColumnVisible = stored_property(True, bool, changed="_show_columns")
    opacityColumnVisible = stored_property(True, bool, changed="_show_columns")
    statusColumnVisible = stored_property(False, bool, changed="_show_columns")
    layerColumnVisible = stored_property(False, bool)
    filterBarVisible = stored_property(False, bool)
    textFilter = stored_property("", str, changed="_refresh")
    readOnly = stored_property(False, bool, changed="_refresh")
    jumpToSelectedSegmentEnabled = stored_property(False, bool)
    useTerminologySelector = stored_property(True, bool)
    useTerminologySelectorSettingsKey = stored_property("", str)
    terminologySelectorAutoDisable = stored_property(True, bool)
    terminologySelectorOptionVisible = stored_property(True, bool)
    segmentCount = property(lambda self: self._segments().GetNumberOfSegments() if self._segmentation else 0)

    def _segments(self):
        return self._segmentation.GetSegmentation()

    def _show_columns(self):
        self._table.horizontalHeader().setVisible(self.headerVisible)
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(self.selectionMode))
        for column, visible in (
            (_VISIBLE, self.visibilityColumnVisible),
            (_COLOR, self.colorColumnVisible),
            (_OPACITY, self.opacityColumnVisible),
            (_STATUS, self.statusColumnVisible),
        ):
            self._table.setColumnHidden(column, not visible)

    def segmentationNode(self):
        """Return the segmentation node, or None."""
        return self._segmentation

    def setSegmentationNode(self, node):
        """Show the segments of a node."""
        if node is self._segmentation:
            return
        self._observers.stop()
        self._segmentation = node
        if node is not None:
            if node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
            for name in _SEGMENT_EVENTS:
                self._observers.observe(self._segments(), getattr(slicer.vtkSegmentation, name), self._on_modified)
            self._observers.observe(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._on_modified)
        self._refresh()

    def setMRMLScene(self, scene):
        """Set the scene; another scene, or none, empties the table."""
        if scene is not self._scene:
            self.setSegmentationNode(None)
        super().setMRMLScene(scene)

    def _on_modified(self, *_event):
        self._refresh()

    def _shown_ids(self):
        if self._segmentation is None:
            return []
        segments = self._segments()
        ids = [segments.GetNthSegmentID(index) for index in range(segments.GetNumberOfSegments())]
        wanted = self.textFilter.lower()
        return [
            item
            for item in ids
            if item not in self._hidden_ids
            and wanted in segments.GetSegment(item).GetName().lower()
            and self._status_of(item) not in self._hidden_statuses
        ]

    def _status_of(self, segment_id):
        return slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(self._segments().GetSegment(segment_id))

    def _refresh(self):
        if self._filling:
            return
        self._filling = True
        selected = self.selectedSegmentIDs()
        blocker = QtCore.QSignalBlocker(self._table.selectionModel())
        ids = self._shown_ids()
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            self._fill_row(row, segment_id)
        self._select(selected)
        del blocker
        self._filling = False

    def _fill_row(self, row, segment_id):
        segment, display = self._segments().GetSegment(segment_id), self._segmentation.GetDisplayNode()
        visible = _read_only_item()
        shown = display.GetSegmentVisibility(segment_id)
        visible.setCheckState(QtCore.Qt.Checked if shown else QtCore.Qt.Unchecked)
        visible.setData(QtCore.Qt.UserRole, segment_id)
        color = _read_only_item()
        swatch = QtGui.QPixmap(18, 14)
        swatch.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
        color.setIcon(QtGui.QIcon(swatch))
        make = _read_only_item if self.readOnly else QtWidgets.QTableWidgetItem
        items = {
            _VISIBLE: visible,
            _COLOR: color,
            _OPACITY: make(f"{display.GetSegmentOpacity3D(segment_id):.2f}"),
            _STATUS: _read_only_item(_STATUS_NAMES[self._status_of(segment_id)]),
            _NAME: make(segment.GetName()),
        }
        for column, item in items.items():
            self._table.setItem(row, column, item)

    def _on_item_changed(self, item):
        if self._filling or self._segmentation is None:
            return
        segment_id = self.segmentIDForRow(item.row())
        display = self._segmentation.GetDisplayNode()
        if item.column() == _VISIBLE:
            display.SetSegmentVisibility(segment_id, item.checkState() == QtCore.Qt.Checked)
        elif item.column() == _OPACITY:
            display.SetSegmentOpacity3D(segment_id, float(item.text()))
        elif item.column() == _NAME:
            self.segmentAboutToBeModified.emit(segment_id)
            self._segments().GetSegment(segment_id).SetName(item.text())

    def _on_double_clicked(self, row, column):
        if column != _COLOR or self.readOnly:
            return
        segment = self._segments().GetSegment(self.segmentIDForRow(row))
        color = QtWidgets.QColorDialog.getColor(QtGui.QColor.fromRgbF(*segment.GetColor()), self)
        if color.isValid():
            self.segmentAboutToBeModified.emit(self.segmentIDForRow(row))
            segment.SetColor(color.redF(), color.greenF(), color.blueF())

    def _select(self, ids):
        model, flags = self._table.selectionModel(), QtCore.QItemSelectionModel.Select | QtCore.QItemSelectionModel.Rows
        model.clearSelection()
        for row in range(self._table.rowCount):
            if self.segmentIDForRow(row) in ids:
                model.select(self._table.model().index(row, _NAME), flags)

    def selectedSegmentIDs(self):
        """Return the IDs of the selected segments, from top to bottom."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedIndexes})
        return tuple(self.segmentIDForRow(row) for row in rows)

    def setSelectedSegmentIDs(self, ids):
        """Select the segments with these IDs."""
        self._select(tuple(ids))

    def clearSelection(self):
        """Select nothing."""
        self._table.clearSelection()

    def displayedSegmentIDs(self):
        """Return the IDs of the segments that no filter hides."""
        return tuple(self._shown_ids())

    def setHideSegments(self, ids):
        """Leave these segments out of the table."""
        self._hidden_ids = tuple(ids)
        self._refresh()

    def hideSegments(self):
        """Return the segments left out of the table."""
        return self._hidden_ids

    def setStatusShown(self, status, shown):
        """Show segments of a status, or not."""
        (self._hidden_statuses.discard if shown else self._hidden_statuses.add)(status)
        self._refresh()

    def statusShown(self, status):
        """Tell whether segments of a status are shown."""
        return status not in self._hidden_statuses

    def rowForSegmentID(self, segment_id):
        """Return the row of a segment, or -1."""
        ids = self._shown_ids()
        return ids.index(segment_id) if segment_id in ids else -1

    def segmentIDForRow(self, row):
        """Return the segment ID of a row, or an empty string."""
        item = self._table.item(row, _VISIBLE)
        return item.data(QtCore.Qt.UserRole) if item is not None else ""

    def tableWidget(self):
        """Return the table."""
        return self._table

    def showOnlySelectedSegments(self):
        """Make the selected segments visible and the others invisible."""
        selected, display = self.selectedSegmentIDs(), self._segmentation.GetDisplayNode()
        for segment_id in self._shown_ids():
            display.SetSegmentVisibility(segment_id, segment_id in selected)

    def toggleSelectedSegmentsVisibility(self):
        """Make visible segments of the selection invisible and the other way round."""
        display = self._segmentation.GetDisplayNode()
        for segment_id in self.selectedSegmentIDs():
            display.SetSegmentVisibility(segment_id, not display.GetSegmentVisibility(segment_id))

    def setSelectionMode(self, mode):
        """Set how many segments can be selected."""
        self.selectionMode = mode

    def setReadOnly(self, value):
        """Let the user only look."""
        self.readOnly = value

    def setHeaderVisible(self, value):
        """Show or hide the header."""
        self.headerVisible = value

    def setVisibilityColumnVisible(self, value):
        """Show or hide the column of visibility."""
        self.visibilityColumnVisible = value

    def setColorColumnVisible(self, value):
        """Show or hide the column of colour."""
        self.colorColumnVisible = value

    def setOpacityColumnVisible(self, value):
        """Show or hide the column of opacity."""
        self.opacityColumnVisible = value

    def setStatusColumnVisible(self, value):
        """Show or hide the column of status."""
        self.statusColumnVisible = value

    def setTextFilter(self, text):
        """Show only segments whose name holds `text`."""
        self.textFilter = text


@look_alike()
class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """A button that makes the closed surfaces of a segmentation, or takes them away."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._segmentation, self._showing = None, False
        self._observers = Observers(self)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.toggled.connect(self._on_toggled)
        self._show_state()

    locked = stored_property(False, bool, changed="_show_state")

    def setLocked(self, value):
        """Keep the button as it is."""
        self.locked = value

    def segmentationNode(self):
        """Return the segmentation node, or None."""
        return self._segmentation

    def setSegmentationNode(self, node):
        """Serve a segmentation node."""
        self._observers.stop()
        self._segmentation = node
        if node is not None:
            for name in ("ContainedRepresentationNamesModified", "SegmentAdded", "SegmentRemoved"):
                event = getattr(slicer.vtkSegmentation, name)
                self._observers.observe(node.GetSegmentation(), event, self._on_modified)
        self._show_state()

    def _on_modified(self, *_event):
        self._show_state()

    def _has_surface(self):
        name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        return self._segmentation is not None and self._segmentation.GetSegmentation().ContainsRepresentation(name)

    def _show_state(self):
        self._showing = True
        self.setEnabled(self._segmentation is not None and not self.locked)
        self.setChecked(self._has_surface())
        self._showing = False

    def _on_toggled(self, checked):
        if self._showing or self._segmentation is None:
            return
        if checked:
            self._segmentation.CreateClosedSurfaceRepresentation()
        else:
            self._segmentation.RemoveClosedSurfaceRepresentation()
