"""Look-alike of Slicer's node selector."""

import slicer
import vtk

from slicer_host.look_alikes import look_alike, stored_property, string_tuple
from slicer_host.pythonqt import QtCore, QtWidgets
from slicer_host.widgets.mrml_widget import Observers, SceneReader

_NODE_SIGNALS = ("nodeActivated", "nodeAdded", "nodeAddedByUser", "nodeAddedByUserAction", "nodeAboutToBeRemoved")


@look_alike(
    signals={
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_has_current_changed",
        "nodeAboutToBeEdited(vtkMRMLNode*)": "nodeAboutToBeEdited",
        **{f"{name}(vtkMRMLNode*)": name for name in _NODE_SIGNALS},
    }
)
class qMRMLNodeComboBox(SceneReader, QtWidgets.QWidget):
    """A combo box of the scene's nodes of some types.

    Which node is current: the one that was asked for, also where it enters the scene later; none where None was asked
    for; else, unless `noneEnabled`, the first node. When the current node leaves, its neighbour follows it unless
    `noneEnabled`.
    """

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    currentNodeRenamed = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAddedByUserAction = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    nodeAboutToBeEdited = QtCore.Signal(object)
    _has_current_changed = QtCore.Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._listed_ids: list[str] = []
        self._current_id = ""
        self._requested_id: str | None = None
        self._attributes: list[tuple[str, str, str | None]] = []
        self._type_labels: dict[str, str] = {}
        self._menu_actions: list = []
        self._scene_observers, self._node_observers = Observers(self), Observers(self)
        self._combo = self._new_combo()
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._on_activated)
        self.setEnabled(False)

    def _new_combo(self):
        return QtWidgets.QComboBox(self)

    nodeTypes = stored_property((), string_tuple, changed="_refresh")
    showHidden = stored_property(False, bool, changed="_refresh")
    showChildNodeTypes = stored_property(True, bool, changed="_refresh")
    hideChildNodeTypes = stored_property((), string_tuple, changed="_refresh")
    noneEnabled = stored_property(False, bool, changed="_refresh")
    noneDisplay = stored_property("None", str, changed="_refresh")
    addEnabled = stored_property(True, bool, changed="_refresh")
    removeEnabled = stored_property(True, bool, changed="_refresh")
    editEnabled = stored_property(False, bool, changed="_refresh")
    renameEnabled = stored_property(False, bool, changed="_refresh")
    baseName = stored_property("", str)
    selectNodeUponCreation = stored_property(True, bool)
    interactionNodeSingletonTag = stored_property("", str)
    sizeAdjustPolicy = stored_property(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)

    # The scene

    def _scene_changed(self):
        self._scene_observers.stop()
        if self._scene is not None:
            for event, callback in (
                (slicer.vtkMRMLScene.NodeAddedEvent, self._on_node_added),
                (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_node_about_to_be_removed),
                (slicer.vtkMRMLScene.NodeRemovedEvent, self._on_node_removed),
                (slicer.vtkMRMLScene.EndBatchProcessEvent, self._on_batch_ended),
                (slicer.vtkMRMLScene.EndCloseEvent, self._on_scene_closed),
            ):
                self._scene_observers.observe(self._scene, event, callback)
        self.setEnabled(self._scene is not None)
        self._refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, scene, _event, node):
        if not scene.IsBatchProcessing() and self._accepts(node):
            self._refresh()
            self.nodeAdded.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_about_to_be_removed(self, scene, _event, node):
        if not scene.IsBatchProcessing() and self._accepts(node):
            self.nodeAboutToBeRemoved.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, scene, _event, node):
        if not scene.IsBatchProcessing() and node.GetID() in self._listed_ids:
            self._refresh()

    def _on_batch_ended(self, _scene, _event):
        self._refresh()

    def _on_scene_closed(self, _scene, _event):
        self._requested_id = None
        self._refresh()

    def _on_node_modified(self, node, _event):
        index = self._combo.findData(node.GetID())
        if index < 0 or not self._accepts(node):
            self._refresh()
        elif self._combo.itemText(index) != (node.GetName() or ""):
            self._combo.setItemText(index, node.GetName() or "")
            if node.GetID() == self._current_id:
                self.currentNodeRenamed.emit(node.GetName() or "")

    # Which nodes are listed

    def _has_type(self, node):
        if any(node.IsA(name) for name in self.hideChildNodeTypes):
            return False
        if self.showChildNodeTypes:
            return any(node.IsA(name) for name in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _accepts(self, node):
        if node is None or (node.GetHideFromEditors() and not self.showHidden) or not self._has_type(node):
            return False
        for node_type, name, wanted in self._attributes:
            value = node.GetAttribute(name)
            if node.IsA(node_type) and (value is None or (wanted is not None and value != wanted)):
                return False
        return True

    def _nodes(self):
        if self._scene is None:
            return []
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in nodes if self._accepts(node)]

    def _label_of_type(self, node_type):
        if node_type in self._type_labels or self._scene is None:
            return self._type_labels.get(node_type, node_type)
        node = self._scene.CreateNodeByClass(node_type)
        if node is None:
            return node_type
        node.UnRegister(None)
        return node.GetTypeDisplayName() if hasattr(node, "GetTypeDisplayName") else node.GetNodeTagName()

    def _actions(self):
        creators = [(self._label_of_type(name), ("add", name)) for name in self.nodeTypes] if self.addEnabled else []
        actions = [(f"Create new {label}", action) for label, action in creators]
        actions += [
            (f"Create new {label} as…", ("add as", name)) for label, (_, name) in creators if self.renameEnabled
        ]
        for enabled, text, action in (
            (self.renameEnabled, "Rename current node", "rename"),
            (self.editEnabled, "Edit current node", "edit"),
            (self.removeEnabled, "Delete current node", "remove"),
        ):
            if enabled:
                actions.append((text, (action, "")))
        return actions + [(item.text, ("menu", item)) for item in self._menu_actions]

    def _refresh(self):
        nodes = self._nodes()
        previous, self._listed_ids = self._listed_ids, [node.GetID() for node in nodes]
        self._node_observers.stop()
        for node in nodes:
            self._node_observers.observe(node, vtk.vtkCommand.ModifiedEvent, self._on_node_modified)
        combo, blocker = self._combo, QtCore.QSignalBlocker(self._combo)
        combo.clear()
        if self._scene is not None:
            if self.noneEnabled:
                combo.addItem(self.noneDisplay, "")
            for node in nodes:
                combo.addItem(node.GetName() or "", node.GetID())
            self._decorate(nodes)
            actions = self._actions()
            if actions:
                combo.insertSeparator(combo.count)
            for text, action in actions:
                combo.addItem(text, action)
            combo.setPlaceholderText(f"Select a {self._label_of_type(self.nodeTypes[0])}" if self.nodeTypes else "")
        del blocker
        self._select(self._id_to_select(previous))

    def _decorate(self, nodes):
        """Give the listed items what a subclass adds to them."""

    # Which node is current

    def _id_to_select(self, previous_ids):
        ids = self._listed_ids
        if self._requested_id and self._requested_id in ids:
            return self._requested_id
        if self._current_id in ids:
            return self._current_id
        if self.noneEnabled or self._requested_id == "" or not ids:
            return ""
        place = previous_ids.index(self._current_id) if self._current_id in previous_ids else 0
        return ids[min(place, len(ids) - 1)]

    def _select(self, node_id):
        blocker = QtCore.QSignalBlocker(self._combo)
        self._combo.setCurrentIndex(self._combo.findData(node_id))
        del blocker
        if node_id == self._current_id:
            return
        self._current_id = node_id
        node = self.currentNode()
        self.currentNodeChanged.emit(node)
        self._has_current_changed.emit(node is not None)
        self.currentNodeIDChanged.emit(node_id)

    def _on_activated(self, index):
        data = self._combo.itemData(index)
        if isinstance(data, str) or data is None:
            self._requested_id = data or ""
            self._select(data or "")
            self.nodeActivated.emit(self.currentNode())
            return
        self._select(self._current_id)
        self._run(*data)

    def _run(self, action, argument):
        match action:
            case "add" | "add as":
                node = self.addNode(argument)
                self.nodeAddedByUserAction.emit(node)
                if action == "add as":
                    self.renameCurrentNode()
            case "rename":
                self.renameCurrentNode()
            case "edit":
                self.editCurrentNode()
            case "remove":
                self.removeCurrentNode()
            case "menu":
                argument.trigger()

    # What PythonQt shows

    def currentNode(self):
        """Return the current node, or None."""
        return self._scene.GetNodeByID(self._current_id) if self._scene is not None and self._current_id else None

    def setCurrentNode(self, node):
        """Make a node, given itself or by its ID, the current one; None for none."""
        self.setCurrentNodeID(node if isinstance(node, str) or node is None else node.GetID())

    def setCurrentNodeID(self, node_id):
        """Make the node with this ID the current one, as soon as it is listed."""
        self._requested_id = node_id or ""
        if self._requested_id and self._requested_id not in self._listed_ids:
            self._refresh()
        self._select(self._requested_id if self._requested_id in self._listed_ids else "")

    def setCurrentNodeIndex(self, index):
        """Make the node at `index` the current one."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def nodeCount(self):
        """Return the number of listed nodes."""
        return len(self._listed_ids)

    def nodeFromIndex(self, index):
        """Return the listed node at `index`, or None."""
        return self._scene.GetNodeByID(self._listed_ids[index]) if 0 <= index < len(self._listed_ids) else None

    def addNode(self, *node_type):
        """Add a node of the given type, or of the first of `nodeTypes`, and return it."""
        chosen = node_type[0] if node_type else self.nodeTypes[0]
        node = self._scene.CreateNodeByClass(chosen)
        node.UnRegister(None)
        node.SetName(self._scene.GetUniqueNameByString(self.baseName or self._label_of_type(chosen)))
        for attribute_type, name, value in self._attributes:
            if node.IsA(attribute_type):
                node.SetAttribute(name, value or "")
        node = self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        """Remove the current node from the scene."""
        node = self.currentNode()
        if node is not None:
            self._requested_id = None
            self._scene.RemoveNode(node)

    def renameCurrentNode(self):
        """Ask the user for another name of the current node."""
        node = self.currentNode()
        if node is not None:
            name = QtWidgets.QInputDialog.getText(
                self, "Rename node", "New name:", QtWidgets.QLineEdit.Normal, node.GetName()
            )
            if name:
                node.SetName(name)

    def editCurrentNode(self):
        """Say that the current node is to be edited."""
        if self.currentNode() is not None:
            self.nodeAboutToBeEdited.emit(self.currentNode())

    def addAttribute(self, node_type, name, *value):
        """List nodes of `node_type` only where they have the attribute, with the value if one is given."""
        self._attributes.append((node_type, name, str(value[0]) if value and value[0] is not None else None))
        self._refresh()

    def removeAttribute(self, node_type, name):
        """Take such a filter away."""
        self._attributes = [item for item in self._attributes if item[:2] != (node_type, name)]
        self._refresh()

    def addMenuAction(self, action):
        """Add an action below the nodes."""
        self._menu_actions.append(action)
        self._refresh()

    def setNodeTypeLabel(self, label, node_type):
        """Set what the menu calls a node type."""
        self._type_labels[node_type] = label
        self._refresh()

    def nodeTypeLabel(self, node_type):
        """Return what the menu calls a node type."""
        return self._label_of_type(node_type)

    currentNodeID = property(lambda self: self._current_id, setCurrentNodeID)
    currentNodeId = property(lambda self: self._current_id, setCurrentNodeID)
