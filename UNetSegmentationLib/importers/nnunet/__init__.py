"""Results of nnU-Net v2 (doi:10.1038/s41592-020-01008-z)."""

from ..contract import IMPORTERS, Importer
from .results import find_results, read_results

IMPORTERS.register("nnunet", title="nnU-Net v2 results")(
    Importer(recognises=lambda folder: bool(find_results(folder)), read=read_results)
)
