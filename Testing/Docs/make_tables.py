"""Generate docs/EXTENDING.md, docs/MODELS.md and docs/NETWORKS.md.

python Testing/Docs/make_tables.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import extending_document
import models_document
import networks_document

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTS = {
    "EXTENDING.md": extending_document.document,
    "MODELS.md": models_document.document,
    "NETWORKS.md": networks_document.document,
}


def main() -> int:
    """Write the files, or with --check only check whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    is_check = parser.parse_args().check
    for name, document in DOCUMENTS.items():
        target, text = DOCS / name, document()
        if is_check and not (target.is_file() and target.read_text(encoding="utf-8") == text):
            return 1
        if not is_check:
            target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
