"""Put the starter models into the wheel, at the place where the library looks first."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODELS = Path("Resources/Models")


class BuildWithModels(build_py):
    """Copy Resources/Models into the package; an editable installation finds them where they are."""

    def run(self) -> None:
        """Build the package, then add the models."""
        super().run()
        if not self.editable_mode and MODELS.is_dir():
            shutil.copytree(MODELS, Path(self.build_lib) / "UNetSegmentationLib" / MODELS, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModels})
