"""The extension as Slicer would configure and install it: everything is there, and nothing that does not belong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "slicer_stand_in"
CATALOG_KEYS = {"$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"}
MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")


@dataclass(frozen=True, kw_only=True)
class Configured:
    """The extension's build folder, the folder that it was installed into and the recorded calls."""

    build: Path
    installed: Path
    records: list[tuple[str, str, str, str]]

    def of_kind(self, kind: str) -> list[tuple[str, str, str]]:
        return [(owner, source, place) for found, owner, source, place in self.records if found == kind]

    @property
    def metadata(self) -> dict[str, str]:
        return {name: value for name, value, _ in self.of_kind("METADATA")}


def _configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", source, "-B", build, f"-DSlicer_DIR={STAND_IN}", "-Werror=dev", "-Wno-deprecated"]
    command.append(f"-DCMAKE_TOOLCHAIN_FILE={Path(__file__).parent / 'no_compiler.cmake'}")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Configured:
    assert shutil.which("cmake"), "cmake is missing: install the Debian package cmake"
    folder = tmp_path_factory.mktemp("extension")
    build, installed = folder / "a build", folder / "an install"
    configured = _configure(ROOT, build)
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--install", build, "--prefix", installed], check=True, capture_output=True)
    lines = (build / "recorded.txt").read_text(encoding="utf-8").splitlines()
    return Configured(build=build, installed=installed, records=[tuple(line.split("|")) for line in lines])


def _files(folder: Path, pattern: str = "*") -> set[Path]:
    """Return the files below `folder`, relative to it, without what Python and the editor leave behind."""
    found = {path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts and path.name != "CMakeLists.txt"}


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("UNetSegmentation", MODULES),
        ("UNetSegmentationLib", MODULES / "UNetSegmentationLib"),
        ("Resources/Models", MODULES / "UNetSegmentationLib/Resources/Models"),
        ("Resources/Samples", MODULES / "UNetSegmentationLib/Resources/Samples"),
    ],
)
@pytest.mark.parametrize("tree", ["build", "installed"])
def test_every_file_reaches_its_place_unchanged(extension: Configured, tree: str, source: str, place: Path) -> None:
    files = _files(ROOT / source)
    assert files, f"{source} is empty"
    for file in files:
        copy = getattr(extension, tree) / place / file
        assert copy.is_file(), f"{source}/{file} does not reach the {tree} tree"
        assert copy.read_bytes() == (ROOT / source / file).read_bytes()


def test_nothing_else_is_installed(extension: Configured) -> None:
    expected = {
        *(MODULES / file for file in _files(ROOT / "UNetSegmentation")),
        *(MODULES / "UNetSegmentationLib" / file for file in _files(ROOT / "UNetSegmentationLib")),
        *(MODULES / "UNetSegmentationLib/Resources/Models" / file for file in _files(ROOT / "Resources/Models")),
        *(MODULES / "UNetSegmentationLib/Resources/Samples" / file for file in _files(ROOT / "Resources/Samples")),
    }
    assert _files(extension.installed) == expected


def test_no_top_level_name_is_shared_with_other_extensions(extension: Configured) -> None:
    packages = {path.name for path in (extension.installed / MODULES).iterdir() if path.is_dir()}
    assert packages == {"UNetSegmentationLib", "UNetSegmentationPanel", "Resources"}
    assert not list(extension.installed.rglob("Testing"))


def test_one_script_only_can_be_taken_for_a_module(extension: Configured) -> None:
    """Slicer tries to load every script that lies directly in the folder of the modules."""
    scripts = [path.name for path in (extension.installed / MODULES).glob("*.py")]
    assert scripts == ["UNetSegmentation.py"]


def test_every_folder_of_scripts_is_a_package(extension: Configured) -> None:
    folders = {script.parent for script in (extension.installed / MODULES).glob("*/**/*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_nothing_is_listed_twice(extension: Configured) -> None:
    places = [place for kind in ("SCRIPTS", "RESOURCES") for *_, place in extension.of_kind(kind)]
    assert len(places) == len(set(places))


def test_the_module_brings_its_tests(extension: Configured) -> None:
    assert [owner for owner, *_ in extension.of_kind("TEST")] == ["UNetSegmentation.py"]
    assert [owner for owner, *_ in extension.of_kind("GENERIC_TEST")] == ["UNetSegmentation"]


def test_the_package_is_made(extension: Configured) -> None:
    assert [owner for owner, *_ in extension.of_kind("PACKAGE")] == ["UNetSegmentation"]


def test_a_new_script_is_found_without_an_entry(tmp_path: Path) -> None:
    """Copy the extension, add a network, configure again: the new file is listed."""
    for name in ("UNetSegmentation", "UNetSegmentationLib", "Resources"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path / "source")
    new = tmp_path / "source/UNetSegmentationLib/networks/one_more.py"
    new.write_text('"""One more."""\n', encoding="utf-8")
    assert _configure(tmp_path / "source", tmp_path / "build").returncode == 0
    assert (tmp_path / "build" / MODULES / "UNetSegmentationLib/networks/one_more.py").is_file()


def test_installed_library_finds_its_models(extension: Configured) -> None:
    """Run from the installed tree alone: the shipped models are listed, and every one lies in that tree."""
    program = (
        "from UNetSegmentationLib.models.installed import list_models\n"
        "print(*(model.folder for model in list_models()), sep='\\n')"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("UNETSEG_MODELS", "XDG_DATA_HOME")}
    environment |= {"PYTHONPATH": str(extension.installed / MODULES), "HOME": str(extension.build)}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=extension.installed,
    )
    assert answer.returncode == 0, answer.stderr
    listed = {Path(line).resolve() for line in answer.stdout.splitlines() if line}
    shipped = (extension.installed / MODULES / "UNetSegmentationLib/Resources/Models").resolve()
    assert listed == {path.parent for path in shipped.glob("*/model.json")}


class TestCatalogEntry:
    """UNetSegmentation.json against the extension, as the catalog's own checks compare them."""

    @pytest.fixture
    def entry(self) -> dict[str, object]:
        return json.loads((ROOT / "UNetSegmentation.json").read_text(encoding="utf-8"))

    def test_keys_are_those_of_the_schema(self, entry: dict[str, object]) -> None:
        assert set(entry) == CATALOG_KEYS

    def test_agrees_with_the_extension(self, entry: dict[str, object], extension: Configured) -> None:
        assert entry["build_dependencies"] == extension.metadata["DEPENDS"].split()
        assert entry["category"] == extension.metadata["CATEGORY"]
        assert entry["scm_url"] == extension.metadata["HOMEPAGE"]

    def test_pictures_are_files_of_this_repository(self, entry: dict[str, object], extension: Configured) -> None:
        prefix = str(entry["scm_url"]).replace("github.com", "raw.githubusercontent.com") + f"/{entry['scm_revision']}/"
        for url in [extension.metadata["ICONURL"], *extension.metadata["SCREENSHOTURLS"].split()]:
            assert url.startswith(prefix)
            assert (ROOT / url.removeprefix(prefix)).is_file(), f"{url} names a file that is not there"

    def test_repository_is_named_as_the_catalog_asks(self, entry: dict[str, object]) -> None:
        assert str(entry["scm_url"]).rsplit("/", 1)[1].startswith("Slicer")
