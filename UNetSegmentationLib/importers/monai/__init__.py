"""MONAI bundles."""

from ..contract import IMPORTERS, Importer
from .bundle import find_bundles, read_bundle

IMPORTERS.register("monai_bundle", title="MONAI bundle")(
    Importer(recognises=lambda folder: bool(find_bundles(folder)), read=read_bundle)
)
