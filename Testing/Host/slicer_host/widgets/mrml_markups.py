"""Look-alikes of the widgets that place markups, for what point and box prompts need."""

import slicer
import vtk

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets
from slicer_host.widgets.mrml_node_selector import qMRMLNodeComboBox
from slicer_host.widgets.mrml_widget import Observers, qSlicerWidget

_COORDINATES = "RAS"


def _tool_button(parent, name, text, tip):
    button = QtWidgets.QToolButton(parent)
    button.setObjectName(name)
    button.setText(text)
    button.setToolTip(tip)
    return button


@look_alike()
class qSlicerMarkupsPlaceWidget(qSlicerWidget):
    """Buttons that switch the place mode for one markups node."""

    activeMarkupsPlaceModeChanged = QtCore.Signal(bool)
    activeMarkupsFiducialPlaceModeChanged = QtCore.Signal(bool)
    ShowPlaceMultipleMarkupsOption, HidePlaceMultipleMarkupsOption = 0, 1
    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 2, 3

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node, self._was_active, self._persistent = None, False, False
        self._interaction, self._selection = None, None
        self._observers = Observers(self)
        self._place_button = _tool_button(self, "PlaceButton", "Place", "Place a control point")
        self._place_button.setCheckable(True)
        self._delete_button = _tool_button(self, "DeleteButton", "Delete", "Delete the last control point")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._place_button)
        layout.addWidget(self._delete_button)
        self._place_button.clicked.connect(self.setPlaceModeEnabled)
        self._delete_button.clicked.connect(self.deleteLastPoint)
        self._show_state()

    buttonsVisible = stored_property(True, bool, changed="_show_state")
    deleteAllControlPointsOptionVisible = stored_property(True, bool)
    deleteAllMarkupsOptionVisible = stored_property(True, bool)
    unsetAllControlPointsOptionVisible = stored_property(False, bool)
    unsetLastControlPointOptionVisible = stored_property(False, bool)
    defaultNodeColor = stored_property(QtGui.QColor(0, 255, 0))
    placeMultipleMarkups = stored_property(0, int)

    def setMRMLScene(self, scene):
        """Take the interaction and selection nodes of the scene."""
        super().setMRMLScene(scene)
        if scene is None:
            self.setInteractionNode(None)
            self._selection = None
            return
        logic = slicer.app.applicationLogic()
        self._selection = logic.GetSelectionNode()
        self.setInteractionNode(logic.GetInteractionNode())

    def setInteractionNode(self, node):
        """Take the mouse mode from this node."""
        if self._interaction is not None:
            self._observers.stop(self._interaction)
        self._interaction = node
        if node is not None:
            self._observers.observe(node, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._on_modified()

    def setSelectionNode(self, node):
        """Take the active markups node from this node."""
        self._selection = node
        self._on_modified()

    def interactionNode(self):
        """Return the interaction node."""
        return self._interaction

    def selectionNode(self):
        """Return the selection node."""
        return self._selection

    def setCurrentNode(self, node):
        """Place control points of this node."""
        if node is self._node:
            return
        if self._node is not None:
            self.setPlaceModeEnabled(False)
        self._node = node
        self._on_modified()

    def currentNode(self):
        """Return the markups node, or None."""
        return self._node

    def currentMarkupsNode(self):
        """Return the markups node, or None."""
        return self._node

    def placeButton(self):
        """Return the place button."""
        return self._place_button

    def deleteButton(self):
        """Return the delete button."""
        return self._delete_button

    def _is_current_active(self):
        return (
            self._node is not None
            and self._selection is not None
            and self._selection.GetActivePlaceNodeID() == self._node.GetID()
        )

    def setCurrentNodeActive(self, active):
        """Make the node the one that the place mode serves."""
        if active and self._node is not None and self._selection is not None:
            self._selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            self._selection.SetActivePlaceNodeID(self._node.GetID())

    def _is_placing(self):
        place = slicer.vtkMRMLInteractionNode.Place
        return (
            self._is_current_active()
            and self._interaction is not None
            and self._interaction.GetCurrentInteractionMode() == place
        )

    def setPlaceModeEnabled(self, enabled):
        """Switch the mouse to placing control points of the node, or back."""
        if self._node is None or self._interaction is None:
            return
        if enabled:
            self.setCurrentNodeActive(True)
            self._interaction.SetPlaceModePersistence(int(self._persistent))
            self._interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.Place)
        elif self._is_placing():
            self._interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
        self._on_modified()

    def setPlaceModePersistency(self, value):
        """Stay in place mode after a control point."""
        self._persistent = bool(value)
        if self._is_placing():
            self._interaction.SetPlaceModePersistence(int(self._persistent))

    def _on_modified(self, *_event):
        placing = self._is_placing()
        self._show_state()
        if placing != self._was_active:
            self._was_active = placing
            self.activeMarkupsPlaceModeChanged.emit(placing)
            self.activeMarkupsFiducialPlaceModeChanged.emit(placing)

    def _show_state(self):
        self.setEnabled(self._node is not None)
        self._place_button.setChecked(self._is_placing())
        for button in (self._place_button, self._delete_button):
            button.setVisible(self.buttonsVisible)

    def deleteLastPoint(self):
        """Delete the last control point."""
        if self._node is not None and self._node.GetNumberOfControlPoints():
            self._node.RemoveNthControlPoint(self._node.GetNumberOfControlPoints() - 1)

    def deleteAllPoints(self):
        """Delete all control points."""
        if self._node is not None:
            self._node.RemoveAllControlPoints()

    def setButtonsVisible(self, visible):
        """Show or hide the buttons."""
        self.buttonsVisible = visible

    def setNodeColor(self, color):
        """Colour the control points."""
        if self._node is not None and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetSelectedColor(color.redF(), color.greenF(), color.blueF())

    def _node_color(self):
        if self._node is None or self._node.GetDisplayNode() is None:
            return self.defaultNodeColor
        return QtGui.QColor.fromRgbF(*self._node.GetDisplayNode().GetSelectedColor())

    currentNodeActive = property(_is_current_active, setCurrentNodeActive)
    placeModeEnabled = property(_is_placing, setPlaceModeEnabled)
    placeModePersistency = property(lambda self: self._persistent, setPlaceModePersistency)
    nodeColor = property(_node_color, setNodeColor)


@look_alike()
class qSlicerSimpleMarkupsWidget(qSlicerWidget):
    """A selector, a place widget and a table of the control points of one markups node."""

    markupsNodeChanged = QtCore.Signal()
    markupsFiducialNodeChanged = QtCore.Signal()
    currentMarkupsControlPointSelectionChanged = QtCore.Signal(int)
    activeMarkupsPlaceModeChanged = QtCore.Signal(bool)
    updateFinished = QtCore.Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._observers = Observers(self)
        self._selector = qMRMLNodeComboBox(self)
        self._selector.setObjectName("MarkupsNodeComboBox")
        self._selector.nodeTypes = ("vtkMRMLMarkupsFiducialNode",)
        self._selector.noneEnabled = True
        self._place_widget = qSlicerMarkupsPlaceWidget(self)
        self._place_widget.setObjectName("MarkupsPlaceWidget")
        self._table = QtWidgets.QTableWidget(0, 4, self)
        self._table.setObjectName("MarkupsControlPointsTableWidget")
        self._table.setHorizontalHeaderLabels(["Label", *_COORDINATES])
        self._table.setMinimumHeight(90)
        row = QtWidgets.QHBoxLayout()
        row.addWidget(self._selector, 1)
        row.addWidget(self._place_widget)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self._table)
        self._selector.currentNodeChanged.connect(self._on_node_changed)
        self._place_widget.activeMarkupsPlaceModeChanged.connect(self.activeMarkupsPlaceModeChanged)
        self._table.currentCellChanged.connect(
            lambda current, *_: self.currentMarkupsControlPointSelectionChanged.emit(current)
        )

    enterPlaceModeOnNodeChange = stored_property(True, bool)
    jumpToSliceEnabled = stored_property(False, bool)
    defaultNodeColor = stored_property(QtGui.QColor(0, 255, 0))
    optionsVisible = stored_property(True, bool, changed="_show_parts")
    nodeSelectorVisible = stored_property(True, bool, changed="_show_parts")
    viewGroup = stored_property(-1, int)

    def _show_parts(self):
        self._selector.setVisible(self.nodeSelectorVisible)
        self._place_widget.setVisible(self.optionsVisible)

    def setMRMLScene(self, scene):
        """Set the scene of all parts."""
        super().setMRMLScene(scene)
        self._selector.setMRMLScene(scene)
        self._place_widget.setMRMLScene(scene)

    def _on_node_changed(self, node):
        self._observers.stop()
        if node is not None:
            for event in (
                slicer.vtkMRMLMarkupsNode.PointAddedEvent,
                slicer.vtkMRMLMarkupsNode.PointRemovedEvent,
                slicer.vtkMRMLMarkupsNode.PointModifiedEvent,
            ):
                self._observers.observe(node, event, self._on_points_changed)
        self._place_widget.setCurrentNode(node)
        if node is not None and self.enterPlaceModeOnNodeChange:
            self._place_widget.setPlaceModeEnabled(True)
        self._on_points_changed()
        self.markupsNodeChanged.emit()
        self.markupsFiducialNodeChanged.emit()

    def _on_points_changed(self, *_event):
        node = self.currentNode()
        count = node.GetNumberOfControlPoints() if node is not None else 0
        self._table.setRowCount(count)
        for index in range(count):
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPosition(index, position)
            texts = [node.GetNthControlPointLabel(index), *(f"{value:.2f}" for value in position)]
            for column, text in enumerate(texts):
                self._table.setItem(index, column, QtWidgets.QTableWidgetItem(text))
        self.updateFinished.emit()

    def currentNode(self):
        """Return the markups node, or None."""
        return self._selector.currentNode()

    def getCurrentNode(self):
        """Return the markups node, or None."""
        return self._selector.currentNode()

    def setCurrentNode(self, node):
        """Show a markups node."""
        self._selector.setCurrentNode(node)

    def setNodeBaseName(self, name):
        """Name new nodes after `name`."""
        self._selector.baseName = name

    def markupsPlaceWidget(self):
        """Return the place widget."""
        return self._place_widget

    def markupsSelectorComboBox(self):
        """Return the node selector."""
        return self._selector

    def tableWidget(self):
        """Return the table."""
        return self._table

    def setNodeSelectorVisible(self, visible):
        """Show or hide the node selector."""
        self.nodeSelectorVisible = visible

    def setOptionsVisible(self, visible):
        """Show or hide the place widget."""
        self.optionsVisible = visible

    def setEnterPlaceModeOnNodeChange(self, value):
        """Start to place when another node is chosen."""
        self.enterPlaceModeOnNodeChange = value

    def setJumpToSliceEnabled(self, value):
        """Jump to a control point when it is chosen."""
        self.jumpToSliceEnabled = value

    def setDefaultNodeColor(self, color):
        """Set the colour of new nodes."""
        self.defaultNodeColor = color
