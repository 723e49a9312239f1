"""Models of other tools brought into our model folder, one file a tool; nothing in their files is ever executed."""

from .contract import IMPORTERS, ForeignModel, Importer, ImportOptions, import_model

__all__ = ["IMPORTERS", "ForeignModel", "ImportOptions", "Importer", "import_model"]
