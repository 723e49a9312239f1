"""Look-alike of Slicer's node selector with check marks."""

from slicer_host.look_alikes import look_alike
from slicer_host.pythonqt import QtCore, QtWidgets
from slicer_host.widgets.mrml_node_selector import qMRMLNodeComboBox


class _CheckedNamesComboBox(QtWidgets.QComboBox):
    """A combo box that shows the names of its checked items and keeps its list open while they are checked."""

    toggled_item = QtCore.Signal(int)

    def __init__(self, parent):
        super().__init__(parent)
        self.view().viewport().installEventFilter(self)
        self._pressed_on_item = False

    def eventFilter(self, watched, event):
        """Turn a click on a checkable item into a change of its check mark."""
        if event.type() == QtCore.QEvent.MouseButtonRelease:
            index = self.view().indexAt(event.position().toPoint())
            if index.isValid() and index.data(QtCore.Qt.CheckStateRole) is not None:
                self.toggled_item.emit(index.row())
                return True
        return super().eventFilter(watched, event)

    def paintEvent(self, _event):
        """Draw the names instead of the current item."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        checked = [
            self.itemText(row)
            for row in range(self.count)
            if self.itemData(row, QtCore.Qt.CheckStateRole) in (2, QtCore.Qt.Checked)
        ]
        option.currentText = ", ".join(checked) or "None selected"
        painter.drawComplexControl(QtWidgets.QStyle.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.CE_ComboBoxLabel, option)
        painter.end()


@look_alike()
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """A node selector that can check any number of nodes."""

    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent=None):
        self._checked_ids: set[str] = set()
        self._locked_ids: set[str] = set()
        super().__init__(parent)
        self._combo.toggled_item.connect(self._on_toggled_item)

    def _new_combo(self):
        return _CheckedNamesComboBox(self)

    def _decorate(self, nodes):
        before, self._checked_ids = self._checked_ids, self._checked_ids & set(self._listed_ids)
        for node in nodes:
            state = QtCore.Qt.Checked if node.GetID() in self._checked_ids else QtCore.Qt.Unchecked
            self._combo.setItemData(self._combo.findData(node.GetID()), state, QtCore.Qt.CheckStateRole)
        if before != self._checked_ids:
            self.checkedNodesChanged.emit()

    def _on_toggled_item(self, row):
        node_id = self._combo.itemData(row)
        if node_id in self._listed_ids and node_id not in self._locked_ids:
            node = self._scene.GetNodeByID(node_id)
            checked = node_id in self._checked_ids
            self.setCheckState(node, QtCore.Qt.Unchecked if checked else QtCore.Qt.Checked)

    def _split(self):
        nodes = self._nodes()
        checked = tuple(node for node in nodes if node.GetID() in self._checked_ids)
        return checked, tuple(node for node in nodes if node.GetID() not in self._checked_ids)

    def checkedNodes(self):
        """Return the checked nodes."""
        return self._split()[0]

    def uncheckedNodes(self):
        """Return the other nodes."""
        return self._split()[1]

    def allChecked(self):
        """Tell whether no node is left unchecked."""
        return not self._split()[1]

    def noneChecked(self):
        """Tell whether no node is checked."""
        return not self._split()[0]

    def checkState(self, node):
        """Return the check state of a node."""
        return QtCore.Qt.Checked if node.GetID() in self._checked_ids else QtCore.Qt.Unchecked

    def setCheckState(self, node, state):
        """Check or uncheck a node."""
        node_id = node.GetID()
        if node_id not in self._listed_ids or self.checkState(node) == state:
            return
        if state == QtCore.Qt.Checked:
            self._checked_ids.add(node_id)
        else:
            self._checked_ids.discard(node_id)
        self._combo.setItemData(self._combo.findData(node_id), QtCore.Qt.CheckState(state), QtCore.Qt.CheckStateRole)
        self._combo.update()
        self.checkedNodesChanged.emit()

    def setUserCheckable(self, node, checkable):
        """Let the user change the check mark of a node, or not."""
        (self._locked_ids.discard if checkable else self._locked_ids.add)(node.GetID())

    def check(self, node):
        """Check a node."""
        self.setCheckState(node, QtCore.Qt.Checked)

    def uncheck(self, node):
        """Uncheck a node."""
        self.setCheckState(node, QtCore.Qt.Unchecked)
