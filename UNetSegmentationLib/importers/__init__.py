"""Import of models from other tools into model folders, one file per tool; nothing in their files is ever executed."""

from .contract import IMPORTERS, ForeignModel, Importer, ImportOptions, import_model

__all__ = ["IMPORTERS", "ForeignModel", "ImportOptions", "Importer", "import_model"]
