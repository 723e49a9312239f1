"""Look-alike of the IO manager: reading and writing by the genuine module logics and storage nodes."""

import re
from pathlib import Path

import slicer
import vtk

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pictures import is_picture, load_picture
from slicer_host.pythonqt import QtCore, QtWidgets

FILE_TYPES = {
    "SegmentationFile": (".seg.nrrd", ".seg.nhdr", ".seg.vtm"),
    "MarkupsFile": (".mrk.json", ".fcsv"),
    "VolumeFile": (
        *(".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".hdr", ".img", ".img.gz"),
        *(".dcm", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"),
    ),
    "ModelFile": (".vtk", ".vtp", ".stl", ".ply", ".obj"),
    "TransformFile": (".h5", ".tfm", ".mat"),
    "TableFile": (".tsv", ".csv"),
    "TextFile": (".txt", ".json", ".xml"),
    "ColorTableFile": (".ctbl",),
    "SceneFile": (".mrml", ".mrb"),
}
_STORAGE_AND_NODE = {
    "ModelFile": ("vtkMRMLModelStorageNode", "vtkMRMLModelNode"),
    "TransformFile": ("vtkMRMLTransformStorageNode", "vtkMRMLTransformNode"),
    "TableFile": ("vtkMRMLTableStorageNode", "vtkMRMLTableNode"),
    "TextFile": ("vtkMRMLTextStorageNode", "vtkMRMLTextNode"),
    "ColorTableFile": ("vtkMRMLColorTableStorageNode", "vtkMRMLColorTableNode"),
}
_WRITERS = {
    "vtkMRMLSegmentationNode": "SegmentationFile",
    "vtkMRMLVolumeNode": "VolumeFile",
    "vtkMRMLModelNode": "ModelFile",
    "vtkMRMLMarkupsNode": "MarkupsFile",
    "vtkMRMLTransformNode": "TransformFile",
    "vtkMRMLTableNode": "TableFile",
    "vtkMRMLTextNode": "TextFile",
    "vtkMRMLScene": "SceneFile",
}
# The bits of vtkSlicerVolumesLogic's loading options.
_VOLUME_OPTIONS = {"labelmap": 1, "center": 2, "singleFile": 4, "autoWindowLevel": 8, "discardOrientation": 16}


def known_extension(path: str) -> tuple[str, str]:
    """Return the file type and the longest known extension of a path; ("NoFile", suffix) for others."""
    name = Path(path).name.lower()
    matches = [
        (len(extension), file_type, extension)
        for file_type, extensions in FILE_TYPES.items()
        for extension in extensions
        if name.endswith(extension)
    ]
    return max(matches)[1:] if matches else ("NoFile", Path(name).suffix)


def _new_storage_node(node):
    storage = node.CreateDefaultStorageNode()
    storage.UnRegister(None)  # the method leaves a reference to its caller
    storage.SetScene(slicer.mrmlScene)  # volumes list their formats only inside a scene
    return storage


def _fail(messages, text):
    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
    return False


@look_alike(
    signals={
        "newFileLoaded(qSlicerIO::IOProperties)": "newFileLoaded",
        "fileSaved(qSlicerIO::IOProperties)": "fileSaved",
    }
)
class qSlicerCoreIOManager(QtCore.QObject):
    """Reads files into nodes and writes nodes to files."""

    newFileLoaded = QtCore.Signal(dict)
    fileSaved = QtCore.Signal(dict)

    defaultSceneFileType = stored_property("MRML Scene (.mrml)", str)
    defaultMaximumFileNameLength = stored_property(50, int)

    # Reading

    def fileType(self, path):
        """Return the type of a file by its name."""
        return known_extension(str(path))[0]

    def loadNodes(self, file_type, properties, *rest):
        """Read a file; put the nodes into the vtkCollection and problems into the messages, if given."""
        collection, messages = (*rest, None, None)[:2]
        path = str(properties["fileName"])
        if not Path(path).exists():
            return _fail(messages, f"File not found: {path}")
        if file_type == "SceneFile":
            return self.loadScene(path, bool(properties.get("clear", False)), messages)
        node = self._load_node(file_type, path, properties)
        if node is None:
            return _fail(messages, f"Failed to read {path} as {file_type}")
        if collection is not None:
            collection.AddItem(node)
        self.newFileLoaded.emit({"fileType": file_type, "fileName": path, "nodeIDs": (node.GetID(),)})
        return True

    def _load_node(self, file_type, path, properties):
        name = properties.get("name")
        if not name:
            base = Path(path).name
            extension = known_extension(path)[1]
            name = base[: len(base) - len(extension)] or base
        if file_type == "VolumeFile":
            return self._load_volume(path, name, properties)
        if file_type == "SegmentationFile":
            return slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, True, name)
        if file_type == "MarkupsFile":
            node_id = slicer.modules.markups.logic().LoadMarkups(path, name)
            return slicer.mrmlScene.GetNodeByID(node_id) if node_id else None
        return self._load_by_storage(file_type, path, name)

    def _load_volume(self, path, name, properties):
        given = {"autoWindowLevel": True, **properties}
        options = sum(bit for key, bit in _VOLUME_OPTIONS.items() if given.get(key))
        if is_picture(path):
            node = load_picture(path, name)
        else:
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
        if node is not None and given.get("show", True):
            logic = slicer.app.applicationLogic()
            selection = logic.GetSelectionNode()
            if given.get("labelmap"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            logic.PropagateVolumeSelection(int(given.get("fitSlices", True)))
        return node

    def _load_by_storage(self, file_type, path, name):
        if file_type not in _STORAGE_AND_NODE:
            return None
        scene = slicer.mrmlScene
        storage_class, node_class = _STORAGE_AND_NODE[file_type]
        node, storage = (
            scene.AddNewNodeByClass(node_class, scene.GetUniqueNameByString(name)),
            scene.AddNewNodeByClass(storage_class),
        )
        storage.SetFileName(path)
        if not storage.ReadData(node):
            scene.RemoveNode(storage)
            scene.RemoveNode(node)
            return None
        node.SetAndObserveStorageNodeID(storage.GetID())
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        return node

    def loadFile(self, path, *rest):
        """Read a file of any known type."""
        return self.loadNodes(self.fileType(path), {"fileName": path}, None, *rest)

    def loadScene(self, path, *rest):
        """Read a scene; `clear` (true if not given) says whether it replaces what is there."""
        clear, messages = (*rest, *(True, None)[len(rest) :])[:2]
        scene = slicer.mrmlScene
        messages = slicer.vtkMRMLMessageCollection() if messages is None else messages
        if str(path).endswith(".mrb"):
            return bool(scene.ReadFromMRB(str(path), bool(clear), messages))
        scene.SetURL(str(path))
        return bool(scene.Connect(messages) if clear else scene.Import(messages))

    # Writing

    def fileWriterFileType(self, node, *_extension):
        """Return the file type that a node is written as."""
        return next((file_type for name, file_type in _WRITERS.items() if node.IsA(name)), "NoFile")

    def fileWriterExtensions(self, node):
        """Return the formats of a node, such as "NRRD (.nrrd)"."""
        formats = _new_storage_node(node).GetSupportedWriteFileTypes()
        return tuple(formats.GetValue(index) for index in range(formats.GetNumberOfValues()))

    def extractKnownExtension(self, path, node):
        """Return the longest extension of `path` among the node's formats, or an empty string."""
        from_format = slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString
        extensions = [from_format(item) for item in self.fileWriterExtensions(node)]
        fitting = [item for item in extensions if str(path).lower().endswith(item.lower())]
        return max(fitting, key=len, default="")

    def stripKnownExtension(self, path, node):
        """Return `path` without its known extension."""
        return str(path).removesuffix(self.extractKnownExtension(path, node))

    def forceFileNameValidCharacters(self, name):
        """Return the name without what file systems refuse."""
        return re.sub(r'[\\/:*?"<>|]', "_", name).strip()

    def _write(self, node, path, properties, messages, storage):
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        storage.SetFileName(str(path))
        written = bool(storage.WriteData(node))
        if written:
            self.fileSaved.emit({"nodeID": node.GetID(), "fileName": str(path)})
        if messages is not None:
            messages.AddMessages(storage.GetUserMessages())
        return written

    def saveNodes(self, file_type, properties, *rest):
        """Write a node, keeping the file name in its storage node."""
        messages = rest[0] if rest else None
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            return self._save_scene(path, messages)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node is None:
            return _fail(messages, f"No node with ID {properties['nodeID']}")
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        return self._write(node, path, properties, messages, node.GetStorageNode())

    def exportNodes(self, node_ids, paths, properties, *rest):
        """Write nodes by storage nodes of their own, leaving those of the scene as they are."""
        messages = rest[1] if len(rest) > 1 else None
        written = True
        for node_id, path in zip(node_ids, paths, strict=True):
            node = slicer.mrmlScene.GetNodeByID(node_id)
            written = self._write(node, path, properties, messages, _new_storage_node(node)) and written
        return written

    def addDefaultStorageNodes(self):
        """Give every node that can be stored a storage node."""
        nodes = slicer.mrmlScene.GetNodesByClass("vtkMRMLStorableNode")
        nodes.UnRegister(None)
        for index in range(nodes.GetNumberOfItems()):
            node = nodes.GetItemAsObject(index)
            if node.GetSaveWithScene() and node.GetStorageNode() is None:
                node.AddDefaultStorageNode()

    def saveScene(self, path, _screenshot, *rest):
        """Write the scene as .mrml, .mrb or folder."""
        return self._save_scene(str(path), rest[0] if rest else None)

    def _save_scene(self, path, messages):
        scene = slicer.mrmlScene
        messages = slicer.vtkMRMLMessageCollection() if messages is None else messages
        if path.endswith(".mrb"):
            scene.SetURL(path)
            return bool(scene.WriteToMRB(path, None, messages))
        if path.endswith(".mrml"):
            scene.SetURL(path)
            scene.SetRootDirectory(str(Path(path).parent))
            return bool(scene.Commit(path, messages))
        Path(path).mkdir(parents=True, exist_ok=True)
        return bool(scene.SaveSceneToSlicerDataBundleDirectory(path, None, messages))


@look_alike()
class qSlicerIOManager(qSlicerCoreIOManager):
    """The IO manager of an application with windows."""

    def openAddDataDialog(self, *_path):
        """Let the user choose files to load."""
        patterns = " ".join(f"*{extension}" for extensions in FILE_TYPES.values() for extension in extensions)
        paths = QtWidgets.QFileDialog.getOpenFileNames(
            slicer.util.mainWindow(), "Load data", "", f"Data ({patterns});;All files (*)"
        )
        loaded = [self.loadFile(path) for path in paths]
        return bool(loaded) and all(loaded)

    def openSaveDataDialog(self):
        """Let the user choose where to write the segmentations and volumes of the scene."""
        folder = QtWidgets.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), "Save data to folder")
        if not folder:
            return False
        extensions = {"vtkMRMLSegmentationNode": ".seg.nrrd", "vtkMRMLScalarVolumeNode": ".nrrd"}
        saved = True
        for class_name, extension in extensions.items():
            for node in slicer.util.getNodesByClass(class_name):
                path = Path(folder) / f"{self.forceFileNameValidCharacters(node.GetName())}{extension}"
                properties = {"nodeID": node.GetID(), "fileName": str(path)}
                saved = self.saveNodes(self.fileWriterFileType(node), properties) and saved
        return saved
